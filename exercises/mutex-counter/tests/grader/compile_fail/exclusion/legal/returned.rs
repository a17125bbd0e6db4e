use mutex_counter::Counter;

fn main() {
    let counter = Counter::new().unwrap();
    let number = counter.with_lock(|number, _| *number).unwrap();
    println!("{number}");
}
