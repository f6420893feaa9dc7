//! Which primitives the crate is made of.

fn main() {
    for model in ["loom", "shuttle"] {
        if std::env::var_os(format!("CARGO_FEATURE_{}", model.to_uppercase())).is_some() {
            println!("cargo:rustc-cfg=winddown_{model}");
        }
    }
    println!("cargo:rerun-if-changed=build.rs");
}
