//! The conventions between the server and its clients for streams: the consoles and port forwards of virtual machines.

/// The WebSocket subprotocol in which each direction of a port forward ends by itself.
///
/// Binary frames carry the bytes. An empty one ends the direction in which it is sent; when both have ended the server sends a close
/// frame: 1000 in good order, another code if bytes were lost or the connection broke, with the reason as one sentence. A client that
/// does not ask for the subprotocol can end its direction by an empty frame as well, but gets no empty frame: for it the close frame ends
/// the guest's direction, and what it sent before its own close frame still arrives.
pub const STREAM_PROTOCOL: &str = "v1.stream.evroclabs.net";
