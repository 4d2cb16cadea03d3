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
    let mut console = shim.attach(PAST_BYTES).await?;
    Ok(tokio::time::timeout(limit, wait_for_serial_in(&mut console, markers)).await.ok().and_then(Result::ok))
}

/// The same on a console that is attached already, without a limit; `UnexpectedEof` when it ends.
pub async fn wait_for_serial_in(console: &mut (impl AsyncReadExt + Unpin), markers: &[&str]) -> io::Result<usize> {
    let longest = markers.iter().map(|marker| marker.len()).max().unwrap_or_default();
    let mut seen = Vec::new();
    loop {
        if console.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let has = |marker: &&str| seen.windows(marker.len().max(1)).any(|window| window == marker.as_bytes());
        if let Some(index) = markers.iter().position(has) {
            return Ok(index);
        }
        // A marker may be cut in two by a read.
        seen.drain(..seen.len().saturating_sub(longest));
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
        assert_eq!(wait_for_serial_in(&mut console, &["panic", "login:"]).await.unwrap(), 1);
        writer.await.unwrap();
        assert!(wait_for_serial_in(&mut console, &["more"]).await.is_err());
    }
}
