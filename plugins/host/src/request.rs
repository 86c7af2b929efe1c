//! Sends one line to a unix stream socket and reads one line back, before a deadline.

use crate::{
    input::{read_some, text},
    wait::{Deadline, describe, errno, interest},
};
use std::{
    ffi::c_int,
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// No answer of weftd is longer.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

type Failure = (&'static str, String);

/// Sends `line` and a newline, returns the first line of the answer without its newline. A failure is its kind (plugins/host.d.ts) and the system's words.
pub fn request(path: &str, line: &str, deadline: Deadline) -> Result<String, Failure> {
    let socket = connect(path, deadline)?;
    let message = [line.as_bytes(), b"\n"].concat();
    let mut rest = message.as_slice();
    let mut answer = Vec::new();
    loop {
        let events = libc::POLLIN | if rest.is_empty() { 0 } else { libc::POLLOUT };
        let mut descriptors = [interest(socket.as_raw_fd(), events)];
        if !deadline.poll(&mut descriptors).map_err(|reason| ("failed", reason))? {
            return Err(("deadline", "no answer in time".into()));
        }
        if descriptors[0].revents & libc::POLLOUT != 0 && !rest.is_empty() {
            rest = &rest[send(socket.as_raw_fd(), rest)?..];
        }
        if descriptors[0].revents & !libc::POLLOUT != 0 && receive(socket.as_raw_fd(), &mut answer)? {
            return Ok(text(answer));
        }
    }
}

fn connect(path: &str, deadline: Deadline) -> Result<OwnedFd, Failure> {
    // SAFETY: all zero is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if path.len() >= address.sun_path.len() {
        return Err(("failed", format!("the path is longer than {} bytes", address.sun_path.len() - 1)));
    }
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: a fresh descriptor is owned by nobody else.
    let socket = match unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) } {
        fd if fd >= 0 => unsafe { OwnedFd::from_raw_fd(fd) },
        _ => return Err(("failed", describe(errno()))),
    };
    // connect(2) waits while the backlog is full; only this option bounds that. Zero means no limit.
    let left = deadline.left().unwrap_or_default().as_micros().max(1);
    let bound = libc::timeval { tv_sec: (left / 1_000_000) as libc::time_t, tv_usec: (left % 1_000_000) as libc::suseconds_t };
    // SAFETY: the pointers and lengths are those of live values.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDTIMEO,
            (&raw const bound).cast(),
            mem::size_of_val(&bound) as libc::socklen_t,
        );
        let length = (mem::offset_of!(libc::sockaddr_un, sun_path) + path.len() + 1) as libc::socklen_t;
        while libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) < 0 {
            let code = errno();
            if code != libc::EINTR {
                return Err((kind(code), describe(code)));
            }
        }
    }
    Ok(socket)
}

fn kind(code: c_int) -> &'static str {
    match code {
        libc::ENOENT | libc::ENOTDIR => "missing",
        libc::ECONNREFUSED => "refused",
        libc::EACCES | libc::EPERM => "denied",
        libc::EAGAIN | libc::ETIMEDOUT => "deadline",
        libc::EPIPE | libc::ECONNRESET => "closed",
        _ => "failed",
    }
}

fn send(fd: c_int, rest: &[u8]) -> Result<usize, Failure> {
    // SAFETY: the pointer and length are those of a live slice.
    let sent = unsafe { libc::send(fd, rest.as_ptr().cast(), rest.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    match (sent, errno()) {
        (sent, _) if sent >= 0 => Ok(sent as usize),
        (_, libc::EAGAIN | libc::EINTR) => Ok(0),
        // The other side may have answered before it closed: read that first.
        (_, libc::EPIPE | libc::ECONNRESET) => Ok(rest.len()),
        (_, code) => Err((kind(code), describe(code))),
    }
}

/// Reads what is available; `true` when a whole line has arrived (and cuts the answer to it).
fn receive(fd: c_int, answer: &mut Vec<u8>) -> Result<bool, Failure> {
    let before = answer.len();
    match read_some(fd, answer) {
        Ok(0) => return Err(("closed", "the connection ended before a whole line had come".into())),
        Ok(_) => {}
        Err(libc::EINTR | libc::EAGAIN) => return Ok(false),
        Err(code) => return Err((kind(code), describe(code))),
    }
    if let Some(end) = answer[before..].iter().position(|byte| *byte == b'\n') {
        answer.truncate(before + end);
        return Ok(true);
    }
    if answer.len() > LONGEST_ANSWER {
        return Err(("failed", format!("the answer is longer than {LONGEST_ANSWER} bytes")));
    }
    Ok(false)
}
