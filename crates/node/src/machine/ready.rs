//! Finding out from the serial console that a guest is up. (That its ssh server answers is a matter of the network.)

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::shim::{ClientError, ShimClient};

/// More than any shim replays.
const PAST_BYTES: usize = 1 << 20;

/// Waits until one of `markers` has come on the console, past output included, and returns which; `None` when the time is over or
/// the console has ended.
pub async fn wait_for_serial(
    shim: &ShimClient,
    markers: &[&str],
    limit: Duration,
) -> Result<Option<usize>, ClientError> {
    let (mut console, mut unread) = (shim.attach(PAST_BYTES).await?, Vec::new());
    let waiting = wait_for_serial_in(&mut console, &mut unread, markers);
    Ok(tokio::time::timeout(limit, waiting).await.ok().and_then(Result::ok))
}

/// The same on a console that is attached already, without a limit; `UnexpectedEof` when it ends. What comes after the marker is left in
/// `unread`, for the next call.
pub async fn wait_for_serial_in(
    console: &mut (impl AsyncReadExt + Unpin),
    unread: &mut Vec<u8>,
    markers: &[&str],
) -> io::Result<usize> {
    let longest = markers.iter().map(|marker| marker.len()).max().unwrap_or_default();
    loop {
        let end_of = |marker: &&str| {
            let at = unread.windows(marker.len().max(1)).position(|window| window == marker.as_bytes())?;
            Some(at + marker.len())
        };
        if let Some((index, end)) = markers.iter().enumerate().find_map(|(index, it)| Some((index, end_of(it)?))) {
            unread.drain(..end);
            return Ok(index);
        }
        // A marker may be cut in two by a read.
        unread.drain(..unread.len().saturating_sub(longest));
        if console.read_buf(unread).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_marker_is_found_across_reads() {
        let (mut console, mut guest) = tokio::io::duplex(3);
        let writer = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            guest.write_all(b"[  1.0] booting\r\nhello login: ").await.unwrap();
        });
        let mut unread = Vec::new();
        assert_eq!(wait_for_serial_in(&mut console, &mut unread, &["panic", "login:"]).await.unwrap(), 1);
        writer.await.unwrap();
        assert!(wait_for_serial_in(&mut console, &mut unread, &["more"]).await.is_err());
    }

    #[tokio::test]
    async fn what_follows_a_marker_in_the_same_read_is_not_lost() {
        let (mut console, mut unread) = (&b"ready\r\nrebooting\r\nready\r\n"[..], Vec::new());
        for marker in ["ready", "rebooting", "ready"] {
            wait_for_serial_in(&mut console, &mut unread, &[marker]).await.unwrap();
        }
        assert!(wait_for_serial_in(&mut console, &mut unread, &["ready"]).await.is_err());
    }
}
