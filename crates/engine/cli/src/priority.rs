//! Which threads go first where there are more of them than cores.
//!
//! On a machine whose cores all compute, a thread that nobody waits for gives way: the one that prepares the next
//! batch, those that make and write summaries. They run in the moments of a step in which a core is idle, at the
//! barrier above all; what they would take from one worker every other would wait for.

/// Lets other threads go before the calling one, for as long as it lives: it runs mostly where a core would
/// stand idle. For work that nobody waits for, beside threads that a whole run waits for.
///
/// A system that refuses changes nothing but who goes first.
pub fn give_way() {
    /// The last of all (`nice(1)`).
    const LAST: i32 = 19;
    // Of no process in particular is, on Linux, of the calling thread.
    let _ = rustix::process::setpriority_process(None, LAST);
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    #[test]
    fn a_thread_gives_way_and_the_others_do_not() {
        let before = getpriority_process(None).unwrap();
        let there = std::thread::spawn(|| {
            super::give_way();
            getpriority_process(None).unwrap()
        });
        assert_eq!(there.join().unwrap(), 19);
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
