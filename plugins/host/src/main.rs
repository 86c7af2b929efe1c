//! The host of the plugin executables: starts QuickJS with only what the script needs, and provides a few system primitives.
//! It knows nothing of CNI; plugins/host.d.ts documents the primitives.
#![no_main] // Rust's own start-up reads /proc/self/maps and costs a dozen system calls; nothing here needs it

mod input;
mod request;
mod spawn;
mod wait;

use rquickjs::{
    CatchResultExt, Context, Ctx, FromJs, Function, Module, Object, Promise, Result, Runtime, String as Text, Value,
    context::intrinsic::{Json, Promise as PromiseIntrinsic},
};
use std::{
    ffi::{CStr, c_char, c_int},
    os::unix::fs::MetadataExt,
};

static BYTECODE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/main.bytecode"));

/// What the script may use besides the language's basic objects. No RegExp, Map, Date or eval: each costs start-up time in every call.
type Intrinsics = (Json, PromiseIntrinsic);

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// # Safety
/// Called once by the C library, with its argument vector.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let program = if argc > 0 { unsafe { lossy(*argv) } } else { String::new() };
    let status = run(&program).unwrap_or_else(|reason| {
        let _ = write_all(2, &format!("{program}: {reason}\n"));
        1
    });
    // All output is written: no destructor has anything to do.
    unsafe { libc::_exit(status) }
}

fn run(program: &str) -> std::result::Result<c_int, String> {
    let runtime = Runtime::new().map_err(|error| format!("QuickJS does not start: {error}"))?;
    // A process that ends within milliseconds does not need the cycle collector.
    runtime.set_gc_threshold(usize::MAX);
    let context = Context::custom::<Intrinsics>(&runtime).map_err(|error| format!("QuickJS does not start: {error}"))?;
    let status = context.with(|ctx| start(&ctx, program).catch(&ctx).map_err(|error| error.to_string()));
    std::mem::forget((context, runtime)); // the kernel frees faster
    status
}

/// Runs the script's `main(host)` and returns what its promise resolves to: the exit status.
fn start(ctx: &Ctx, program: &str) -> Result<c_int> {
    // SAFETY: the bytes come from build.rs, made by the same engine.
    let (module, _) = unsafe { Module::load(ctx.clone(), BYTECODE)? }.eval()?;
    let main: Function = module.get("main")?;
    let promise: Promise = main.call((host(ctx, program)?,))?;
    promise.finish()
}

fn host<'js>(ctx: &Ctx<'js>, program: &str) -> Result<Object<'js>> {
    let host = Object::new(ctx.clone())?;
    host.set("program", program)?;
    host.set("environment", environment())?;
    host.set(
        "readInput",
        Function::new(ctx.clone(), |ctx: Ctx<'js>, limit: f64| text_or_reason(&ctx, input::read_all(limit as usize)))?,
    )?;
    host.set(
        "write",
        Function::new(ctx.clone(), |ctx: Ctx<'js>, stream: String, Said(text): Said| {
            let fd = if stream == "output" { 1 } else { 2 };
            write_all(fd, &text).map_err(|reason| throw(&ctx, &format!("cannot write to standard {stream}: {reason}")))
        })?,
    )?;
    host.set("isFile", Function::new(ctx.clone(), |Said(path): Said| std::fs::metadata(path).is_ok_and(|found| found.is_file()))?)?;
    // An empty text for what is no link or cannot be read.
    host.set(
        "readLink",
        Function::new(ctx.clone(), |Said(path): Said| std::fs::read_link(path).map_or(String::new(), |to| to.to_string_lossy().into_owned()))?,
    )?;
    host.set(
        "readText",
        Function::new(ctx.clone(), |ctx: Ctx<'js>, Said(path): Said, limit: f64| text_or_reason(&ctx, input::read_file(&path, limit as u64)))?,
    )?;
    // An empty text for what is not there.
    host.set(
        "identity",
        Function::new(ctx.clone(), |Said(path): Said| {
            std::fs::metadata(path).map_or(String::new(), |found| format!("{}:{}", found.dev(), found.ino()))
        })?,
    )?;
    host.set(
        "request",
        Function::new(ctx.clone(), |ctx: Ctx<'js>, Said(socket): Said, Said(line): Said, deadline: f64| {
            match request::request(&socket, &line, wait::Deadline::after(deadline)) {
                Ok(line) => object(&ctx, "line", &[("line", &line)]),
                Err((kind, reason)) => object(&ctx, kind, &[("reason", &reason)]),
            }
        })?,
    )?;
    host.set("spawn", Function::new(ctx.clone(), spawn_for)?)?;
    Ok(host)
}

fn spawn_for<'js>(
    ctx: Ctx<'js>,
    Said(program): Said,
    arguments: Vec<Said>,
    environment: Object<'js>,
    Said(input): Said,
    deadline: f64,
) -> Result<Object<'js>> {
    let arguments: Vec<String> = arguments.into_iter().map(|Said(argument)| argument).collect();
    let changes = environment.props::<String, Said>().map(|change| change.map(|(name, Said(value))| (name, value))).collect::<Result<Vec<_>>>()?;
    match spawn::run(&program, &arguments, &changes, &input, wait::Deadline::after(deadline)) {
        Ok(ended) => {
            let answer = object(&ctx, ended.kind, &[("stdout", &ended.stdout), ("stderr", &ended.stderr)])?;
            answer.set("status", ended.status)?;
            Ok(answer)
        }
        Err(reason) => object(&ctx, "failed", &[("reason", &reason)]),
    }
}

/// A string of the script. An unpaired surrogate, which JSON allows and UTF-8 does not, becomes U+FFFD.
struct Said(String);

impl<'js> FromJs<'js> for Said {
    fn from_js(_: &Ctx<'js>, value: Value<'js>) -> Result<Self> {
        let text = Text::from_value(value)?.to_cstring()?;
        // SAFETY: pointer and length are those of the string's bytes, valid as long as it is.
        let mut bytes = unsafe { std::slice::from_raw_parts(text.as_ptr().cast::<u8>(), text.len()) }.to_vec();
        // QuickJS encodes an unpaired surrogate as three bytes: ED A0..BF 80..BF.
        for at in 0..bytes.len().saturating_sub(2) {
            if bytes[at] == 0xed && bytes[at + 1] >= 0xa0 {
                bytes[at..at + 3].copy_from_slice("\u{fffd}".as_bytes());
            }
        }
        Ok(Self(input::text(bytes)))
    }
}

fn object<'js>(ctx: &Ctx<'js>, kind: &str, members: &[(&str, &str)]) -> Result<Object<'js>> {
    let answer = Object::new(ctx.clone())?;
    answer.set("kind", kind)?;
    for (name, value) in members {
        answer.set(*name, *value)?;
    }
    Ok(answer)
}

fn text_or_reason<'js>(ctx: &Ctx<'js>, read: std::result::Result<String, String>) -> Result<Object<'js>> {
    match read {
        Ok(text) => object(ctx, "text", &[("text", &text)]),
        Err(reason) => object(ctx, "failed", &[("reason", &reason)]),
    }
}

fn throw(ctx: &Ctx, message: &str) -> rquickjs::Error {
    match Text::from_str(ctx.clone(), message) {
        Ok(text) => ctx.throw(Value::from(text)),
        Err(error) => error,
    }
}

/// The environment as execve got it: `NAME=value`, in order, duplicates included.
fn environment() -> Vec<String> {
    let mut list = Vec::new();
    let mut at = unsafe { environ };
    // SAFETY: the C library's vector ends with a null pointer, and nothing here changes it.
    while !at.is_null() && unsafe { !(*at).is_null() } {
        list.push(unsafe { lossy(*at) });
        at = unsafe { at.add(1) };
    }
    list
}

/// # Safety
/// `text` ends with a zero byte.
unsafe fn lossy(text: *const c_char) -> String {
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn write_all(fd: c_int, text: &str) -> std::result::Result<(), String> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        // SAFETY: the pointer and length are those of a live slice.
        match unsafe { libc::write(fd, rest.as_ptr().cast(), rest.len()) } {
            wrote if wrote >= 0 => rest = &rest[wrote as usize..],
            _ => match wait::errno() {
                libc::EINTR => {}
                libc::EAGAIN => wait::Deadline::never().poll(&mut [wait::interest(fd, libc::POLLOUT)]).map(|_| ())?,
                code => return Err(wait::describe(code)),
            },
        }
    }
    Ok(())
}
