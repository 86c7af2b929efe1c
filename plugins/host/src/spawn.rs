//! Runs another program: passes standard input, returns exit status and both outputs; kills its process group at a deadline.

use crate::{
    input::{read_some, text},
    wait::{Deadline, describe, errno, interest},
};
use std::{
    ffi::c_int,
    io::Write,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, Stdio},
};

pub struct Ended {
    /// `exited` with a status, `killed` by a signal, or stopped at the `deadline` (plugins/host.d.ts).
    pub kind: &'static str,
    /// Exit status; the signal's number when killed; 0 at a deadline.
    pub status: c_int,
    pub stdout: String,
    pub stderr: String,
}

/// Starts `program` with this process's environment and `changes`. It gets pipes, not this process's output: a caller that reads it to the end must not wait
/// for a grandchild. It leads its own process group, so that a deadline also ends its children.
pub fn run(program: &str, arguments: &[String], changes: &[(String, String)], input: &str, deadline: Deadline) -> Result<Ended, String> {
    open_standard_streams();
    // SAFETY: no other thread exists. SIGPIPE from a program that does not read its input must not end this process; std restores the default in the child.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let mut child = Command::new(program)
        .args(arguments)
        .envs(changes.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| error.raw_os_error().map_or_else(|| error.to_string(), describe))?;
    let (stdout, stderr, in_time) = exchange(&mut child, input, deadline)?;
    let (stdout, stderr) = (text(stdout), text(stderr));
    if !in_time || !ends(&mut child, deadline)? {
        // SAFETY: the child is not reaped yet, so its PID is not reused.
        unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
        let _ = child.wait();
        return Ok(Ended { kind: "deadline", status: 0, stdout, stderr });
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    Ok(match status.code() {
        Some(code) => Ended { kind: "exited", status: code, stdout, stderr },
        None => Ended { kind: "killed", status: status.signal().unwrap_or(0), stdout, stderr },
    })
}

/// Moves bytes until the child has ended, or has closed both outputs where the kernel has no pidfd (before 5.3); `false` when the deadline passed first.
fn exchange(child: &mut Child, input: &str, deadline: Deadline) -> Result<(Vec<u8>, Vec<u8>, bool), String> {
    let ended = pidfd(child);
    let mut stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take().ok_or("no pipe")?, child.stderr.take().ok_or("no pipe")?);
    for fd in [stdin.as_ref().map_or(-1, |pipe| pipe.as_raw_fd()), stdout.as_raw_fd(), stderr.as_raw_fd()] {
        // SAFETY: the descriptors are open. A full or empty pipe must not stop the other two.
        unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) };
    }
    let (mut output, mut errors, mut rest) = (Vec::new(), Vec::new(), input.as_bytes());
    let (mut output_fd, mut errors_fd) = (stdout.as_raw_fd(), stderr.as_raw_fd());
    while output_fd >= 0 || errors_fd >= 0 {
        if rest.is_empty() {
            stdin = None; // end of the child's input
        }
        let mut descriptors = [
            interest(output_fd, libc::POLLIN),
            interest(errors_fd, libc::POLLIN),
            interest(stdin.as_ref().map_or(-1, |pipe| pipe.as_raw_fd()), libc::POLLOUT),
            interest(ended.as_ref().map_or(-1, |fd| fd.as_raw_fd()), libc::POLLIN),
        ];
        if !deadline.poll(&mut descriptors)? {
            return Ok((output, errors, false));
        }
        if descriptors[2].revents != 0
            && let Some(pipe) = &mut stdin
        {
            match pipe.write(rest) {
                Ok(wrote) => rest = &rest[wrote..],
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                Err(_) => rest = &[], // it does not read the rest; its exit status says why
            }
        }
        // When the child has ended, what is left in the pipes is read; a grandchild that keeps them open is not waited for.
        let over = descriptors[3].revents != 0;
        drain(&mut output_fd, &mut output, descriptors[0].revents != 0, over);
        drain(&mut errors_fd, &mut errors, descriptors[1].revents != 0, over);
    }
    Ok((output, errors, true))
}

fn drain(fd: &mut c_int, bytes: &mut Vec<u8>, ready: bool, over: bool) {
    while *fd >= 0 && (ready || over) {
        match read_some(*fd, bytes) {
            Err(libc::EINTR) => {}
            Err(libc::EAGAIN) if !over => return,
            Ok(got) if got > 0 => {}
            _ => *fd = -1,
        }
    }
}

/// A descriptor that becomes readable when the child ends.
fn pidfd(child: &Child) -> Option<OwnedFd> {
    // SAFETY: plain numbers; a fresh descriptor is owned by nobody else.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) } as c_int;
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for the child's end; `false` at the deadline. It is not reaped, so that its process group's number is not reused.
fn ends(child: &mut Child, deadline: Deadline) -> Result<bool, String> {
    loop {
        // SAFETY: all zero is a valid siginfo_t, and the pointer is to a live one.
        let mut about: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if unsafe { libc::waitid(libc::P_PID, child.id(), &mut about, flags) } < 0 && errno() != libc::EINTR {
            return Err(describe(errno()));
        }
        if unsafe { about.si_pid() } != 0 {
            return Ok(true);
        }
        if deadline.left().is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        let ended = pidfd(child);
        deadline.within(10).poll(&mut [interest(ended.as_ref().map_or(-1, |fd| fd.as_raw_fd()), libc::POLLIN)])?;
    }
}

/// Opens streams 0 to 2 if they are closed: a pipe for the child would otherwise get such a number, and be overwritten when the child's streams are set.
fn open_standard_streams() {
    for fd in 0..3 {
        // SAFETY: plain numbers and a constant string. open(2) takes the lowest free number, which is `fd`.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) < 0 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
}
