//! Cannot show its claim here.

fn main() {
    println!("this kernel is too old");
    std::process::exit(77);
}
