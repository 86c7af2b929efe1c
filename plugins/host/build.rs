//! Compiles the bundled script to QuickJS bytecode with the engine that will run it.

use rquickjs::{Context, Module, Runtime, WriteOptions};
use std::{env, fs, path::Path};

fn main() {
    println!("cargo:rerun-if-env-changed=WEFT_PLUGIN_BUNDLE");
    let bundle = env::var("WEFT_PLUGIN_BUNDLE").expect("WEFT_PLUGIN_BUNDLE must name the bundled script: run scripts/build-plugins");
    println!("cargo:rerun-if-changed={bundle}");
    let source = fs::read(&bundle).unwrap_or_else(|error| panic!("cannot read {bundle}: {error}"));

    let runtime = Runtime::new().expect("a QuickJS runtime");
    let context = Context::full(&runtime).expect("a QuickJS context");
    let bytecode = context.with(|ctx| {
        let module =
            Module::declare(ctx.clone(), "main.js", source).unwrap_or_else(|error| panic!("{bundle} does not compile: {error}: {:?}", ctx.catch()));
        // Keeps line numbers for stack traces; strips the source text of functions.
        let options = WriteOptions { strip_source: true, ..WriteOptions::default() };
        module.write(options).expect("bytecode")
    });
    let out = Path::new(&env::var("OUT_DIR").unwrap()).join("main.bytecode");
    fs::write(out, bytecode).expect("OUT_DIR can be written");
}
