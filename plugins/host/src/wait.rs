//! Deadlines, poll(2), and messages for error numbers.

use std::{
    ffi::c_int,
    io,
    time::{Duration, Instant},
};

/// When to stop waiting; `None` is never.
#[derive(Clone, Copy)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// `milliseconds` from now; anything that is not a positive finite number has passed already.
    pub fn after(milliseconds: f64) -> Self {
        let bounded = if milliseconds.is_finite() { milliseconds.clamp(0.0, 1e12) } else { 0.0 };
        Self(Some(Instant::now() + Duration::from_micros((bounded * 1000.0) as u64)))
    }

    pub fn never() -> Self {
        Self(None)
    }

    /// Time that is left; `None` when there is no deadline.
    pub fn left(&self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// The earlier of this deadline and `milliseconds` from now.
    pub fn within(&self, milliseconds: u64) -> Self {
        let other = Instant::now() + Duration::from_millis(milliseconds);
        Self(Some(self.0.map_or(other, |end| end.min(other))))
    }

    /// Waits for one of the descriptors; `false` when the deadline passed first. Negative descriptors are ignored, as poll(2) does.
    pub fn poll(&self, descriptors: &mut [libc::pollfd]) -> Result<bool, String> {
        loop {
            let timeout = match self.left() {
                None => -1,
                Some(left) => c_int::try_from(left.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX),
            };
            // SAFETY: the slice is live, and its length is passed.
            match unsafe { libc::poll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, timeout) } {
                0 => return Ok(false),
                ready if ready > 0 => return Ok(true),
                _ if errno() == libc::EINTR => {}
                _ => return Err(describe(errno())),
            }
        }
    }
}

pub fn interest(fd: c_int, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

pub fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The C library's message for an error number, without Rust's "(os error N)".
pub fn describe(code: c_int) -> String {
    let text = io::Error::from_raw_os_error(code).to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}
