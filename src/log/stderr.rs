//! Standard error for log lines: a reader that has stopped reading loses lines and holds up nobody.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::PIPE_BUF,
};

/// How long a line may wait for a reader who takes lines. One who has stopped is not waited for again.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Lines that nobody took since the last one that somebody did. Held while writing, so that nobody takes the room that
/// another one was promised.
static LOST: Mutex<u64> = Mutex::new(0);

pub(super) struct Stderr;

impl Write for Stderr {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
        pour(&mut io::stderr(), line, &mut lost)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pour(to: &mut (impl Write + AsFd), line: &[u8], lost: &mut u64) -> io::Result<()> {
    if *lost > 0 && has_room(to, *lost)? {
        let note = format!("{lost} lines of the log were lost: nobody read them\n");
        to.write_all(note.as_bytes())?;
        *lost = 0;
    }
    // So much a pipe with any room takes at once.
    for piece in line.chunks(PIPE_BUF) {
        if !has_room(to, *lost)? {
            *lost += 1;
            break;
        }
        to.write_all(piece)?;
    }
    Ok(())
}

fn has_room(to: &impl AsFd, lost: u64) -> io::Result<bool> {
    let patience = if lost > 0 {
        Timespec::default()
    } else {
        PATIENCE
    };
    let ready = poll(&mut [PollFd::new(to, PollFlags::OUT)], Some(&patience))?;
    Ok(ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_reader_that_stopped_loses_lines_and_hears_how_many_when_it_goes_on() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let (line, mut lost) = ([b'x'; 10_000], 0);
        while lost < 3 {
            pour(&mut writer, &line, &mut lost).unwrap();
        }
        let mut room = vec![0; 1 << 16];
        assert!(reader.read(&mut room).unwrap() > 0);
        pour(&mut writer, b"again\n", &mut lost).unwrap();
        assert_eq!(lost, 0);
        drop(writer);
        let mut heard = String::new();
        reader.read_to_string(&mut heard).unwrap();
        assert_eq!(
            heard.trim_start_matches('x'),
            "3 lines of the log were lost: nobody read them\nagain\n"
        );
    }
}
