use mutex_counter::Counter;

fn main() {
    let counter = Counter::new().unwrap();
    let mut kept = None;
    counter
        .with_lock(|number, _| kept = Some(*number))
        .unwrap();
    println!("{kept:?}");
}
