//! File systems that cannot exchange two names in one step, such as NFS, where there is none at hand.

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Does some work in a thread that cannot exchange two names, and neither can programs that it starts.
///
/// # Panics
/// The work does, or this kind of machine is not known.
pub fn without_exchange<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            seccompiler::apply_filter(&filter()).expect("a filter");
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn filter() -> BpfProgram {
    let exchange = u64::from(libc::RENAME_EXCHANGE);
    let flags = SeccompCondition::new(4, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, exchange);
    let rule = SeccompRule::new(vec![flags.expect("a condition")]).expect("a rule");
    let filter = SeccompFilter::new(
        [(libc::SYS_renameat2, vec![rule])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EINVAL as u32),
        std::env::consts::ARCH.try_into().expect("a known machine"),
    );
    filter
        .and_then(TryInto::try_into)
        .expect("a program for the kernel")
}
