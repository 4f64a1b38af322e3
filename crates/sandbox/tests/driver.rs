//! The program that sets up sandboxes for the tests of this crate.

fn main() {
    sandbox::helper_main();
    std::process::exit(2);
}
