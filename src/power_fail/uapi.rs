//! The kernel's GPIO character device, uAPI v2 (`linux/gpio.h`, Linux 5.10 and newer;
//! Documentation/userspace-api/gpio/chardev.rst). The only file of this room with `unsafe`; each block has its proof.
//!
//! What enters: the open device of a chip. What leaves: what it says of itself and of its lines, and a line as a descriptor of its
//! own. The layouts are held against the kernel's header by a test.

#![allow(unsafe_code)]

use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// GPIO_MAX_NAME_SIZE: a name and its zeros.
const NAME: usize = 32;
/// GPIO_V2_LINES_MAX.
const LINES: usize = 64;
/// GPIO_V2_LINE_NUM_ATTRS_MAX.
const ATTRS: usize = 10;

/// `enum gpio_v2_line_flag`.
const USED: u64 = 1 << 0;
const ACTIVE_LOW: u64 = 1 << 1;
const INPUT: u64 = 1 << 2;
const EDGE_RISING: u64 = 1 << 4;
const EDGE_FALLING: u64 = 1 << 5;

const GET_CHIPINFO: Opcode = opcode::read::<ChipInfo>(0xB4, 0x01);
const GET_LINEINFO: Opcode = opcode::read_write::<LineInfo>(0xB4, 0x05);
const GET_LINE: Opcode = opcode::read_write::<LineRequest>(0xB4, 0x07);
const GET_VALUES: Opcode = opcode::read_write::<LineValues>(0xB4, 0x0E);

/// `struct gpiochip_info`.
#[repr(C)]
struct ChipInfo {
    name: [u8; NAME],
    label: [u8; NAME],
    lines: u32,
}

/// `struct gpio_v2_line_info`. Its 64-bit fields are aligned to 8 bytes on every machine (`__aligned_u64`), and so below.
#[repr(C, align(8))]
struct LineInfo {
    name: [u8; NAME],
    consumer: [u8; NAME],
    offset: u32,
    num_attrs: u32,
    flags: u64,
    attrs: [[u64; 2]; ATTRS],
    padding: [u32; 4],
}

/// `struct gpio_v2_line_config`.
#[repr(C, align(8))]
struct LineConfig {
    flags: u64,
    num_attrs: u32,
    padding: [u32; 5],
    attrs: [[u64; 3]; ATTRS],
}

/// `struct gpio_v2_line_request`.
#[repr(C)]
struct LineRequest {
    offsets: [u32; LINES],
    consumer: [u8; NAME],
    config: LineConfig,
    num_lines: u32,
    event_buffer_size: u32,
    padding: [u32; 5],
    fd: i32,
}

/// `struct gpio_v2_line_values`.
#[repr(C, align(8))]
struct LineValues {
    bits: u64,
    mask: u64,
}

// On whatever it is built for: a layout of another size would be another request to the kernel.
const _: () = {
    assert!(size_of::<ChipInfo>() == 68);
    assert!(size_of::<LineInfo>() == 256);
    assert!(size_of::<LineConfig>() == 272);
    assert!(size_of::<LineRequest>() == 592);
    assert!(size_of::<LineValues>() == 16);
};

/// Bytes of a `struct gpio_v2_line_event`.
pub(super) const EVENT_BYTES: usize = 48;
/// Where its `id` is.
const EVENT_ID_AT: usize = 8;
/// GPIO_V2_LINE_EVENT_RISING_EDGE: from inactive to active.
const RISING: u32 = 1;

/// What a chip says of itself.
pub(super) struct Chip {
    pub(super) label: String,
    pub(super) lines: u32,
}

/// What a chip says of one of its lines.
pub(super) struct LineFacts {
    /// Empty where it has none.
    pub(super) name: String,
    /// What the one who has it calls itself; none where it is free.
    pub(super) used_by: Option<String>,
}

/// Asks a chip. Anything else than a chip answers ENOTTY.
pub(super) fn chip(device: &File) -> io::Result<Chip> {
    // SAFETY: the number is that of linux/gpio.h for this struct and carries its size, so nothing but a GPIO chip takes it,
    // and the kernel fills all of it: integers, for which every bit pattern is a value.
    let info = unsafe { ioctl(device, Getter::<GET_CHIPINFO, ChipInfo>::new()) }?;
    Ok(Chip { label: text(&info.label), lines: info.lines })
}

/// Asks a chip about one of its lines.
pub(super) fn line_facts(device: &File, offset: u32) -> io::Result<LineFacts> {
    let mut info = LineInfo {
        name: [0; NAME],
        consumer: [0; NAME],
        offset,
        num_attrs: 0,
        flags: 0,
        attrs: [[0; 2]; ATTRS],
        padding: [0; 4],
    };
    // SAFETY: as in `chip`; the struct outlives the call, and only integers are read and written.
    unsafe { ioctl(device, Updater::<GET_LINEINFO, LineInfo>::new(&mut info)) }?;
    let used_by = (info.flags & USED != 0).then(|| text(&info.consumer));
    Ok(LineFacts { name: text(&info.name), used_by })
}

/// Takes a line as an input that tells of both edges. It is given back when the descriptor is closed.
pub(super) fn take(device: &File, offset: u32, active_low: bool) -> io::Result<OwnedFd> {
    let mut request = LineRequest {
        offsets: [0; LINES],
        consumer: [0; NAME],
        config: LineConfig {
            flags: INPUT | EDGE_RISING | EDGE_FALLING | if active_low { ACTIVE_LOW } else { 0 },
            num_attrs: 0,
            padding: [0; 5],
            attrs: [[0; 3]; ATTRS],
        },
        num_lines: 1,
        // The kernel's own choice, 16: of more it drops the oldest, and the last is what counts.
        event_buffer_size: 0,
        padding: [0; 5],
        fd: -1,
    };
    request.offsets[0] = offset;
    request.consumer[..6].copy_from_slice(b"varved");
    // SAFETY: as in `chip`; the struct outlives the call, and only integers are read and written.
    unsafe { ioctl(device, Updater::<GET_LINE, LineRequest>::new(&mut request)) }?;
    if request.fd < 0 {
        return Err(io::Error::other("the kernel gave no descriptor"));
    }
    // SAFETY: the call succeeded, so the kernel has opened this descriptor for us, close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(request.fd) })
}

/// Whether a line that was taken is active now.
pub(super) fn is_active(line: impl AsFd) -> io::Result<bool> {
    let mut values = LineValues { bits: 0, mask: 1 };
    // SAFETY: as in `chip`; the struct outlives the call, and only integers are read and written.
    unsafe { ioctl(line, Updater::<GET_VALUES, LineValues>::new(&mut values)) }?;
    Ok(values.bits & 1 == 1)
}

/// Whether the line was active after the last of these events; none where there is no whole one.
pub(super) fn active_after(events: &[u8]) -> Option<bool> {
    let last = events.chunks_exact(EVENT_BYTES).next_back()?;
    let id = last[EVENT_ID_AT..EVENT_ID_AT + 4].try_into().ok()?;
    Some(u32::from_ne_bytes(id) == RISING)
}

/// An edge as the kernel tells of it.
#[cfg(test)]
pub(crate) fn edge(active: bool) -> Vec<u8> {
    let id = if active { RISING } else { RISING + 1 };
    let mut bytes = vec![0xee; EVENT_BYTES];
    bytes[EVENT_ID_AT..EVENT_ID_AT + 4].copy_from_slice(&id.to_ne_bytes());
    bytes
}

/// A name up to its first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Sizes, places, request numbers and flags are those of the kernel's own header, as this machine's C compiler reads it.
    #[test]
    fn the_layouts_are_those_of_the_kernels_header() {
        let dir = tempfile::tempdir().expect("a folder");
        let (source, program) = (dir.path().join("layout.c"), dir.path().join("layout"));
        let ours: [(&str, u64); 35] = [
            ("sizeof(struct gpiochip_info)", size_of::<ChipInfo>() as u64),
            ("offsetof(struct gpiochip_info, label)", offset_of!(ChipInfo, label) as u64),
            ("offsetof(struct gpiochip_info, lines)", offset_of!(ChipInfo, lines) as u64),
            ("sizeof(struct gpio_v2_line_info)", size_of::<LineInfo>() as u64),
            ("offsetof(struct gpio_v2_line_info, consumer)", offset_of!(LineInfo, consumer) as u64),
            ("offsetof(struct gpio_v2_line_info, offset)", offset_of!(LineInfo, offset) as u64),
            ("offsetof(struct gpio_v2_line_info, flags)", offset_of!(LineInfo, flags) as u64),
            ("offsetof(struct gpio_v2_line_info, attrs)", offset_of!(LineInfo, attrs) as u64),
            ("offsetof(struct gpio_v2_line_info, padding)", offset_of!(LineInfo, padding) as u64),
            ("sizeof(struct gpio_v2_line_config)", size_of::<LineConfig>() as u64),
            ("offsetof(struct gpio_v2_line_config, num_attrs)", offset_of!(LineConfig, num_attrs) as u64),
            ("offsetof(struct gpio_v2_line_config, padding)", offset_of!(LineConfig, padding) as u64),
            ("offsetof(struct gpio_v2_line_config, attrs)", offset_of!(LineConfig, attrs) as u64),
            ("sizeof(struct gpio_v2_line_request)", size_of::<LineRequest>() as u64),
            ("offsetof(struct gpio_v2_line_request, consumer)", offset_of!(LineRequest, consumer) as u64),
            ("offsetof(struct gpio_v2_line_request, config)", offset_of!(LineRequest, config) as u64),
            ("offsetof(struct gpio_v2_line_request, num_lines)", offset_of!(LineRequest, num_lines) as u64),
            ("offsetof(struct gpio_v2_line_request, padding)", offset_of!(LineRequest, padding) as u64),
            ("offsetof(struct gpio_v2_line_request, fd)", offset_of!(LineRequest, fd) as u64),
            ("sizeof(struct gpio_v2_line_values)", size_of::<LineValues>() as u64),
            ("offsetof(struct gpio_v2_line_values, mask)", offset_of!(LineValues, mask) as u64),
            ("sizeof(struct gpio_v2_line_event)", EVENT_BYTES as u64),
            ("offsetof(struct gpio_v2_line_event, id)", EVENT_ID_AT as u64),
            ("GPIO_GET_CHIPINFO_IOCTL", GET_CHIPINFO as u64),
            ("GPIO_V2_GET_LINEINFO_IOCTL", GET_LINEINFO as u64),
            ("GPIO_V2_GET_LINE_IOCTL", GET_LINE as u64),
            ("GPIO_V2_LINE_GET_VALUES_IOCTL", GET_VALUES as u64),
            ("GPIO_V2_LINE_FLAG_USED", USED),
            ("GPIO_V2_LINE_FLAG_ACTIVE_LOW", ACTIVE_LOW),
            ("GPIO_V2_LINE_FLAG_INPUT", INPUT),
            ("GPIO_V2_LINE_FLAG_EDGE_RISING", EDGE_RISING),
            ("GPIO_V2_LINE_FLAG_EDGE_FALLING", EDGE_FALLING),
            ("GPIO_V2_LINE_EVENT_RISING_EDGE", RISING.into()),
            ("GPIO_V2_LINE_EVENT_FALLING_EDGE", u64::from(RISING) + 1),
            ("GPIO_MAX_NAME_SIZE", NAME as u64),
        ];
        let lines: Vec<String> =
            ours.iter().map(|(name, _)| format!("printf(\"%llu\\n\", (unsigned long long)({name}));")).collect();
        let text = format!(
            "#include <stddef.h>\n#include <stdio.h>\n#include <linux/gpio.h>\nint main(void) {{\n{}\nreturn 0; }}\n",
            lines.join("\n")
        );
        std::fs::write(&source, text).expect("a source");
        let compiled = std::process::Command::new("cc").arg("-o").arg(&program).arg(&source).output().expect("cc");
        assert!(
            compiled.status.success(),
            "the kernel's header is needed (linux-libc-dev): {}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        let said = std::process::Command::new(&program).output().expect("it runs").stdout;
        let said = String::from_utf8(said).expect("numbers");
        let theirs: Vec<u64> = said.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(theirs.len(), ours.len());
        for ((name, ours), theirs) in ours.iter().zip(theirs) {
            assert_eq!(*ours, theirs, "{name}");
        }
    }

    /// The last whole event says how the line is; half an event says nothing.
    #[test]
    fn the_last_event_counts() {
        let (rising, falling) = (edge(true), edge(false));
        assert_eq!(active_after(&[falling.clone(), rising.clone()].concat()), Some(true));
        assert_eq!(active_after(&[rising.clone(), falling].concat()), Some(false));
        assert_eq!(active_after(&rising[..EVENT_BYTES - 1]), None);
        assert_eq!(active_after(&[]), None);
    }

    /// What is no chip is told so by the kernel, and nothing is written anywhere.
    #[test]
    fn another_device_is_no_chip() {
        let null = File::open("/dev/null").expect("/dev/null");
        let refused =
            [chip(&null).err(), line_facts(&null, 0).err(), take(&null, 0, true).err(), is_active(&null).err()];
        for error in refused {
            assert_eq!(error.and_then(|error| error.raw_os_error()), Some(libc::ENOTTY));
        }
    }

    /// Names end at their zero, or fill their array.
    #[test]
    fn names_end_at_their_zero() {
        assert_eq!(text(b"gpio\0\0garbage"), "gpio");
        assert_eq!(text(&[b'x'; NAME]), "x".repeat(NAME));
    }
}
