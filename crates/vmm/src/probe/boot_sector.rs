//! A bootable disk of one sector, for hosts without any image: says [`MARKER`] on the first serial port and halts.

/// The text that it prints.
pub const MARKER: &str = "evroc-probe-ok";

/// A disk of 1 MiB. Real mode, no BIOS calls: it waits for the transmitter of COM1 and writes byte by byte.
pub fn disk() -> Vec<u8> {
    let mut code = vec![
        0xfa, // cli
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x00, 0x00, // mov si, text (patched below)
        0xfc, // cld
        // next:
        0xac, // lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x11, // jz done
        0x88, 0xc4, // mov ah, al
        0xba, 0xfd, 0x03, // mov dx, 0x3fd (line status)
        // wait:
        0xec, // in al, dx
        0xa8, 0x20, // test al, 0x20 (transmitter is empty)
        0x74, 0xfb, // jz wait
        0x88, 0xe0, // mov al, ah
        0xb2, 0xf8, // mov dl, 0xf8 (data)
        0xee, // out dx, al
        0xeb, 0xea, // jmp next
        // done:
        0xf4, // hlt
        0xeb, 0xfd, // jmp done
    ];
    let text = 0x7c00_u16 + u16::try_from(code.len()).unwrap_or(0);
    code[6..8].copy_from_slice(&text.to_le_bytes());
    code.extend_from_slice(format!("\r\n{MARKER}\r\n\0").as_bytes());
    let mut disk = vec![0; 1 << 20];
    disk[..code.len()].copy_from_slice(&code);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative jumps land where the comments say.
    #[test]
    fn jumps_reach_their_labels() {
        let disk = disk();
        let target = |at: usize| (at + 2).wrapping_add_signed(isize::from(disk[at + 1].cast_signed()));
        let (next, wait) = (9, 19);
        assert_eq!((disk[next], disk[wait]), (0xac, 0xec));
        let jumps: Vec<_> = [12, 22, 29].map(target).to_vec();
        assert_eq!(disk[jumps[0]], 0xf4, "jz done");
        assert_eq!(jumps[1..], [wait, next]);
        assert_eq!(&disk[510..512], [0x55, 0xaa]);
    }
}
