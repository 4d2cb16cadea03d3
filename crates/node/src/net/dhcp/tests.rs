//! The answers, with an independent codec as the client.

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};
use proptest::prelude::*;

use super::*;

fn lease() -> Lease {
    Lease {
        mac: "02:e7:0c:00:00:03".parse().unwrap(),
        address: "10.0.0.3".parse().unwrap(),
        subnet: "10.0.0.0/24".parse().unwrap(),
        gateway: "10.0.0.1".parse().unwrap(),
        dns: vec!["192.0.2.53".parse().unwrap(), "192.0.2.54".parse().unwrap()],
        mtu: 1400,
        hostname: "hello".into(),
    }
}

fn request(kind: MessageType, options: &[DhcpOption]) -> Message {
    let mut message = Message::default();
    message.set_opcode(Opcode::BootRequest).set_xid(7).set_chaddr(&lease().mac.0);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    message
}

fn exchange(request: &Message) -> Option<Message> {
    let request = Request::parse(&request.to_vec().unwrap())?;
    let bytes = answer(&request, &lease())?.to_bytes(&request);
    assert!((300..=576).contains(&bytes.len()), "every client takes this much");
    Some(Message::from_bytes(&bytes).unwrap())
}

#[test]
fn the_exchange_leads_to_the_machines_address() {
    let wanted = |address: &str| DhcpOption::RequestedIpAddress(address.parse().unwrap());
    let server = |address: &str| DhcpOption::ServerIdentifier(address.parse().unwrap());
    let mut renewal = request(MessageType::Request, &[]);
    renewal.set_ciaddr(lease().address);
    let mut strange_renewal = request(MessageType::Request, &[]);
    strange_renewal.set_ciaddr([10, 0, 0, 77]);
    for (name, request, want) in [
        ("discover", request(MessageType::Discover, &[]), Some(MessageType::Offer)),
        ("discover another", request(MessageType::Discover, &[wanted("10.0.0.9")]), Some(MessageType::Offer)),
        ("select", request(MessageType::Request, &[wanted("10.0.0.3"), server("10.0.0.1")]), Some(MessageType::Ack)),
        ("select another server", request(MessageType::Request, &[wanted("10.0.0.3"), server("10.0.0.2")]), None),
        ("reboot", request(MessageType::Request, &[wanted("10.0.0.3")]), Some(MessageType::Ack)),
        ("reboot elsewhere", request(MessageType::Request, &[wanted("10.0.0.4")]), Some(MessageType::Nak)),
        ("renew", renewal, Some(MessageType::Ack)),
        ("renew another", strange_renewal, Some(MessageType::Nak)),
        ("request nothing", request(MessageType::Request, &[]), None),
        ("inform", request(MessageType::Inform, &[]), Some(MessageType::Ack)),
        ("release", request(MessageType::Release, &[]), None),
        ("decline", request(MessageType::Decline, &[]), None),
    ] {
        let reply = exchange(&request);
        assert_eq!(reply.as_ref().and_then(|reply| reply.opts().msg_type()), want, "{name}");
        let Some(reply) = reply else { continue };
        assert_eq!((reply.xid(), reply.opcode(), reply.chaddr()), (7, Opcode::BootReply, &lease().mac.0[..]));
        let gives = matches!(name, "discover" | "discover another" | "select" | "reboot" | "renew");
        assert_eq!(reply.yiaddr() == lease().address, gives, "{name}");
        if gives {
            let option = |code| reply.opts().get(code).cloned();
            assert_eq!(option(OptionCode::SubnetMask), Some(DhcpOption::SubnetMask([255, 255, 255, 0].into())));
            assert_eq!(option(OptionCode::Router), Some(DhcpOption::Router(vec![lease().gateway])));
            assert_eq!(option(OptionCode::DomainNameServer), Some(DhcpOption::DomainNameServer(lease().dns)));
            assert_eq!(option(OptionCode::InterfaceMtu), Some(DhcpOption::InterfaceMtu(1400)));
            assert_eq!(option(OptionCode::Hostname), Some(DhcpOption::Hostname("hello".into())));
            assert_eq!(option(OptionCode::AddressLeaseTime), Some(DhcpOption::AddressLeaseTime(LEASE_S)));
        }
    }
}

#[test]
fn others_are_not_answered() {
    let mut other = request(MessageType::Discover, &[]);
    other.set_chaddr(&[2, 0, 0, 0, 0, 9]);
    assert_eq!(exchange(&other), None);
    let mut reply = request(MessageType::Discover, &[]);
    reply.set_opcode(Opcode::BootReply);
    assert_eq!(exchange(&reply), None);
    assert_eq!(exchange(&Message::default()), None);
}

#[test]
fn a_name_that_is_too_long_is_left_out() {
    let lease = Lease { hostname: "x".repeat(300), ..lease() };
    let request = Request::parse(&request(MessageType::Discover, &[]).to_vec().unwrap()).unwrap();
    let reply = answer(&request, &lease).unwrap();
    assert!(reply.options.iter().all(|(code, _)| *code != code::HOSTNAME));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), position in 0_usize..300, byte: u8) {
        let _ = Request::parse(&bytes).map(|request| answer(&request, &lease()));
        let mut bytes = request(MessageType::Discover, &[]).to_vec().unwrap();
        bytes.truncate(position.max(1));
        let _ = Request::parse(&bytes);
        let mut bytes = request(MessageType::Discover, &[]).to_vec().unwrap();
        if let Some(place) = bytes.get_mut(position) {
            *place = byte;
        }
        if let Some(request) = Request::parse(&bytes) && let Some(reply) = answer(&request, &lease()) {
            prop_assert!(Message::from_bytes(&reply.to_bytes(&request)).is_ok());
        }
    }
}
