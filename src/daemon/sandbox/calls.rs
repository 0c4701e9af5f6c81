//! System calls: seccomp (seccomp(2)).

use super::{APPLIED, Outcome, not};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};
use std::collections::BTreeMap;

/// Allowed, whatever their arguments. From what daemons were seen to call, over each transport and with each kind of token, and their neighbours that do the
/// same in another way.
const ALLOWED: &[libc::c_long] = &[
    // Files. Which ones is Landlock's matter.
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_umask,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Sockets, once they are there.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_splice,
    libc::SYS_sendfile,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Memory. What is executable is below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_membarrier,
    libc::SYS_getrandom,
    // Threads and signals of this process.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_getrusage,
    libc::SYS_getpriority,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
];

/// The same by their older names, which x86-64 has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_link,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_eventfd,
    libc::SYS_signalfd,
    libc::SYS_time,
    libc::SYS_getpgrp,
    libc::SYS_arch_prctl,
];
/// renameat(2), by which the C library renames there, and which `libc` has not.
#[cfg(target_arch = "aarch64")]
const OLDER: &[libc::c_long] = &[38];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OLDER: &[libc::c_long] = &[];

/// Makes a thread, and is neither a process nor a namespace.
const THREAD: u64 = libc::CLONE_THREAD as u64;
const NOT_A_THREAD: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// `PR_GET_AUXV` of prctl(2): what the kernel told this program when it started.
const PR_GET_AUXV: libc::c_int = 0x4155_5856;

/// `prctl(2)`: names of threads and of memory, and questions.
const PRCTL: &[libc::c_int] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_VMA,
    libc::PR_GET_DUMPABLE,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_SECCOMP,
    PR_GET_AUXV,
];

/// Restricts every thread of this process. `udp`: it makes UDP sockets.
pub(super) fn restrict(udp: bool) -> Outcome {
    let applied =
        program(udp).and_then(|program| apply_filter_all_threads(&program).map_err(|error| error.to_string()));
    applied.map_or_else(not, |()| APPLIED)
}

fn program(udp: bool) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| format!("it is not known for {} which calls are needed", std::env::consts::ARCH))?;
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    rules(udp)
        .and_then(|rules| SeccompFilter::new(rules, missing, SeccompAction::Allow, arch)?.try_into())
        .map_err(|error: seccompiler::BackendError| error.to_string())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(udp: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = ALLOWED.iter().chain(OLDER).map(|call| (*call, Vec::new())).collect();
    // One of these values of an argument, under a mask.
    let any = |argument: u8, mask: Option<u64>, values: &[u64]| {
        let rule = |value: &u64| {
            let op = mask.map_or(Op::Eq, Op::MaskedEq);
            SeccompRule::new(vec![SeccompCondition::new(argument, Len::Dword, op, *value)?])
        };
        values.iter().map(rule).collect::<Result<Vec<_>, _>>()
    };
    // Threads. clone3(2) keeps its flags in memory, where no filter sees them; after ENOSYS the C library takes this one.
    rules.insert(libc::SYS_clone, any(0, Some(THREAD | NOT_A_THREAD), &[THREAD])?);
    rules.insert(libc::SYS_socket, sockets(udp)?);
    rules.insert(libc::SYS_socketpair, any(0, None, &[libc::AF_UNIX as u64])?);
    // With this flag they connect, too, and Landlock sees connect(2) alone.
    let fast = libc::MSG_FASTOPEN as u64;
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        rules.insert(call, any(flags, Some(fast), &[0])?);
    }
    // Memory that is executable was never written to. What it comes from may have been: a file of the store's directory is both, as by systemd's filter.
    let (write, execute) = (libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
    rules.insert(libc::SYS_mmap, any(2, Some(write | execute), &[0, write, execute])?);
    rules.insert(libc::SYS_mprotect, any(2, Some(execute), &[0])?);
    // Signals and limits for this process alone.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_kill, any(0, None, &[own])?);
    rules.insert(libc::SYS_tgkill, any(0, None, &[own])?);
    rules.insert(libc::SYS_prlimit64, any(0, None, &[0, own])?);
    let prctl: Vec<u64> = PRCTL.iter().map(|option| *option as u64).collect();
    rules.insert(libc::SYS_prctl, any(0, None, &prctl)?);
    // Not what types on somebody's terminal.
    let typing = [libc::TIOCSTI, libc::TIOCLINUX];
    let other = typing.map(|request| SeccompCondition::new(1, Len::Dword, Op::Ne, request));
    let other = other.into_iter().collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_ioctl, vec![SeccompRule::new(other)?]);
    Ok(rules)
}

/// Unix sockets, and of the Internet's TCP and UDP: Landlock's ports are TCP's, and not those of what can do the same, as MPTCP and SCTP.
fn sockets(udp: bool) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let argument = |number, mask: Option<u64>, value: libc::c_int| {
        SeccompCondition::new(number, Len::Dword, mask.map_or(Op::Eq, Op::MaskedEq), value as u64)
    };
    // `SOCK_CLOEXEC` and `SOCK_NONBLOCK` are above it.
    let kind = Some(0xf);
    let mut rules = vec![SeccompRule::new(vec![argument(0, None, libc::AF_UNIX)?])?];
    for family in [libc::AF_INET, libc::AF_INET6] {
        let both = [(libc::SOCK_STREAM, libc::IPPROTO_TCP), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)];
        for (of, protocol) in both.into_iter().take(1 + usize::from(udp)) {
            for protocol in [0, protocol] {
                let conditions = vec![argument(0, None, family)?, argument(1, kind, of)?, argument(2, None, protocol)?];
                rules.push(SeccompRule::new(conditions)?);
            }
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_daemon_calls_is_not_allowed() {
        let rules = rules(false).unwrap();
        let never = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_clone3,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_memfd_create,
            libc::SYS_pkey_mprotect,
            libc::SYS_personality,
            libc::SYS_setuid,
            libc::SYS_init_module,
            libc::SYS_kexec_load,
            libc::SYS_open_by_handle_at,
            libc::SYS_symlinkat,
            libc::SYS_mknodat,
            libc::SYS_pidfd_getfd,
            libc::SYS_shmat,
        ];
        assert!(never.iter().all(|call| !rules.contains_key(call)));
        assert!(program(true).is_ok_and(|program| program.len() < 4096));
    }
}
