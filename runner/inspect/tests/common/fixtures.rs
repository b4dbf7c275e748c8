//! Small PE and Mach-O files, made by hand.

use super::put;

/// A PE32+ program for x86-64: `.text` with `ret`, `.idata` that imports `ExitProcess` and number 7 of KERNEL32.dll.
pub fn pe() -> Vec<u8> {
    let mut file = vec![0u8; 0x600];
    let half = |file: &mut Vec<u8>, offset: usize, value: u16| put(file, offset, &value.to_le_bytes());
    let word = |file: &mut Vec<u8>, offset: usize, value: u32| put(file, offset, &value.to_le_bytes());
    let long = |file: &mut Vec<u8>, offset: usize, value: u64| put(file, offset, &value.to_le_bytes());
    put(&mut file, 0, b"MZ");
    word(&mut file, 0x3c, 0x80);
    put(&mut file, 0x80, b"PE\0\0");
    half(&mut file, 0x84, 0x8664);
    half(&mut file, 0x86, 2);
    word(&mut file, 0x88, 1_600_000_000);
    half(&mut file, 0x94, 240);
    half(&mut file, 0x96, 0x22);
    // Optional header at 0x98.
    half(&mut file, 0x98, 0x20b);
    word(&mut file, 0x98 + 16, 0x1000);
    word(&mut file, 0x98 + 20, 0x1000);
    long(&mut file, 0x98 + 24, 0x1_4000_0000);
    word(&mut file, 0x98 + 32, 0x1000);
    word(&mut file, 0x98 + 36, 0x200);
    word(&mut file, 0x98 + 56, 0x3000);
    word(&mut file, 0x98 + 60, 0x200);
    half(&mut file, 0x98 + 68, 3);
    word(&mut file, 0x98 + 108, 16);
    word(&mut file, 0x98 + 112 + 8, 0x2000);
    word(&mut file, 0x98 + 112 + 12, 40);
    // Sections at 0x188.
    for (index, (name, address, offset, flags)) in [
        (&b".text\0\0\0"[..], 0x1000, 0x200, 0x6000_0020u32),
        (b".idata\0\0", 0x2000, 0x400, 0x4000_0040),
    ]
    .into_iter()
    .enumerate()
    {
        let at = 0x188 + 40 * index;
        put(&mut file, at, name);
        word(&mut file, at + 8, 0x200);
        word(&mut file, at + 12, address);
        word(&mut file, at + 16, 0x200);
        word(&mut file, at + 20, offset);
        word(&mut file, at + 36, flags);
    }
    put(&mut file, 0x200, b"\x31\xc0\xc3");
    word(&mut file, 0x400, 0x2040);
    word(&mut file, 0x40c, 0x2080);
    word(&mut file, 0x410, 0x2060);
    long(&mut file, 0x440, 0x20a0);
    long(&mut file, 0x448, 1 << 63 | 7);
    put(&mut file, 0x480, b"KERNEL32.dll\0");
    put(&mut file, 0x4a2, b"ExitProcess\0");
    file
}

/// A 64-bit Mach-O program for arm64: `__TEXT` with two functions' code, LC_MAIN, a library, a symbol table.
pub fn macho() -> Vec<u8> {
    let mut commands = Vec::new();
    let mut count = 0u32;
    let mut command = |kind: u32, body: &[u8]| {
        commands.extend(kind.to_le_bytes());
        commands.extend((8 + body.len() as u32).to_le_bytes());
        commands.extend(body);
        count += 1;
    };
    let mut segment = b"__TEXT\0\0\0\0\0\0\0\0\0\0".to_vec();
    for value in [0x1_0000_0000u64, 0x4000, 0, 0x400] {
        segment.extend(value.to_le_bytes());
    }
    for value in [5u32, 5, 1, 0] {
        segment.extend(value.to_le_bytes());
    }
    segment.extend(b"__text\0\0\0\0\0\0\0\0\0\0__TEXT\0\0\0\0\0\0\0\0\0\0");
    for value in [0x1_0000_0300u64, 8] {
        segment.extend(value.to_le_bytes());
    }
    for value in [0x300u32, 2, 0, 0, 0x8000_0400, 0, 0, 0] {
        segment.extend(value.to_le_bytes());
    }
    command(0x19, &segment);
    let mut main = 0x300u64.to_le_bytes().to_vec();
    main.extend(0u64.to_le_bytes());
    command(0x8000_0028, &main);
    let mut library = Vec::new();
    for value in [24u32, 0, 0, 0] {
        library.extend(value.to_le_bytes());
    }
    library.extend(b"/usr/lib/libSystem.B.dylib\0\0\0\0\0\0");
    command(0xc, &library);
    command(0x1b, b"0123456789abcdef");
    let mut symbols = Vec::new();
    for value in [0x320u32, 2, 0x340, 32] {
        symbols.extend(value.to_le_bytes());
    }
    command(2, &symbols);
    let mut file = Vec::new();
    for value in [
        0xfeed_facfu32,
        0x0100_000c,
        0,
        2,
        count,
        commands.len() as u32,
        0x20_0085,
        0,
    ] {
        file.extend(value.to_le_bytes());
    }
    file.extend(&commands);
    file.resize(0x400, 0);
    // mov w0, #0; ret
    put(&mut file, 0x300, b"\x00\x00\x80\x52\xc0\x03\x5f\xd6");
    // _main in section 1, external; _puts from elsewhere.
    put(&mut file, 0x320, &[1, 0, 0, 0, 0x0f, 1, 0, 0]);
    put(&mut file, 0x328, &0x1_0000_0300u64.to_le_bytes());
    put(&mut file, 0x330, &[7, 0, 0, 0, 1, 0, 0, 1]);
    put(&mut file, 0x340, b"\0_main\0_puts\0");
    file
}

/// A universal file with [`macho`] at 0x1000, after a program that is not there.
pub fn fat() -> Vec<u8> {
    let inner = macho();
    let mut file = Vec::new();
    for value in [
        0xcafe_babeu32,
        2,
        7,
        3,
        0x9_0000,
        0x100,
        12,
        0x0100_000c,
        0,
        0x1000,
        inner.len() as u32,
        12,
    ] {
        file.extend(value.to_be_bytes());
    }
    file.resize(0x1000, 0);
    file.extend(inner);
    file
}
