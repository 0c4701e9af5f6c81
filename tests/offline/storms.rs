//! Members that break the rules of a session, or use it up. Each attack ends its own session by a typed error or gets nowhere, costs bounded memory, and is not felt by others.

use crate::hostile::{ACK, DATA, FIN, GO_AWAY, Member, PING, RST, SYN, WINDOW, data, frame, open};
use crate::support::{Machine, run, talk};
use claviger::config::Pattern;
use claviger::endpoint::{ConnectOptions, Listening, Resume};
use claviger::session::error_of;
use claviger::token::TokenHandle;
use claviger::wire::control::{Control, Reset, Why};
use claviger::{Endpoint, ErrorKind, Session};
use claviger_testkit::token::isolated;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(20);

/// What this process has in memory, in bytes.
fn resident() -> usize {
    in_memory("VmRSS:")
}

fn in_memory(what: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_end_matches(" kB").trim().parse::<usize>().unwrap() << 10
}

/// One that is attacked, one that attacks, and one that has nothing to do with it.
struct Scene {
    cosigner: Machine,
    mallory: Machine,
    token: TokenHandle,
    caller: Endpoint,
    _answerer: Endpoint,
    listening: Listening,
    _wallet: Machine,
    honest: [Session; 2],
}

impl Scene {
    async fn new(change: impl FnOnce(&mut claviger::config::Config)) -> Self {
        let mut cosigner = Machine::software("cosigner");
        let (mut mallory, mut wallet) = (Machine::software("mallory"), Machine::software("wallet"));
        mallory.introduce(&mut cosigner);
        wallet.introduce(&mut cosigner);
        change(&mut cosigner.config);
        let (caller, answerer) = (wallet.endpoint(Pattern::Kk1).await, cosigner.endpoint(Pattern::Kk1).await);
        let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
        let (session, accepted) =
            tokio::join!(caller.connect_peer(&cosigner.card.identifier, None), listening.accept());
        let token = mallory.token();
        let honest = [session.unwrap(), accepted.unwrap()];
        Self { cosigner, mallory, token, caller, _answerer: answerer, listening, _wallet: wallet, honest }
    }

    /// The attacker's end, and what its victim has.
    async fn meet(&mut self) -> (Member, Session) {
        let calling = Member::call(&self.mallory, &self.token, &self.cosigner);
        let (member, accepted) = tokio::join!(calling, self.listening.accept());
        let accepted = accepted.unwrap();
        assert_eq!(accepted.peer().identifier, self.mallory.card.identifier);
        (member, accepted)
    }

    /// The others are unaffected.
    async fn is_well(&self) {
        let begun = Instant::now();
        timeout(SOON, talk(&self.honest[0], &self.honest[1])).await.expect("others are served");
        assert!(begun.elapsed() < Duration::from_secs(5), "others wait: {:?}", begun.elapsed());
    }
}

/// What a member may say that is against the rules.
enum Said {
    Record(Vec<u8>),
    Control(Vec<Control>),
    Frames(Vec<u8>),
}

#[test]
fn whoever_breaks_the_rules_loses_the_session() {
    use Said::{Control as C, Frames as F, Record as R};
    let opened = |more: Vec<Said>| {
        let mut said = vec![C(vec![open(1)]), F(data(SYN, 1, b"hello"))];
        said.extend(more);
        said
    };
    let cases: Vec<(&str, Vec<Said>)> = vec![
        ("an empty record", vec![R(vec![])]),
        ("a record of no kind", vec![R(vec![2, 1])]),
        ("a control record without a message", vec![R(vec![1])]),
        ("half a PING", vec![R(vec![1, 1, 0, 0, 0])]),
        ("an unknown message", vec![R(vec![1, 8, 0])]),
        ("an unknown reason of DRAIN", vec![R(vec![1, 6, 77])]),
        ("an unknown reason of RESET", opened(vec![R(vec![1, 5, 0, 0, 0, 1, 0, 0, 0, 77])])),
        ("an OPEN with a name that is none", vec![R(vec![1, 3, 0, 0, 0, 1, 1, b'_'])]),
        ("an OPEN without a name", vec![R(vec![1, 3, 0, 0, 0, 1, 0])]),
        ("an OPEN by the other end's number", vec![C(vec![open(2)])]),
        ("an OPEN of stream 0", vec![C(vec![open(0)])]),
        ("the same OPEN twice", vec![C(vec![open(1), open(1)])]),
        ("numbers that do not grow", vec![C(vec![open(3), open(1)])]),
        ("257 OPENs without a stream", vec![C((0..257).map(|at| open(2 * at + 1)).collect())]),
        ("a stream without OPEN", vec![F(data(SYN, 1, b""))]),
        ("a stream by a window update, without OPEN", vec![F(frame(WINDOW, SYN, 1, 0, b""))]),
        ("a stream begun twice", opened(vec![F(data(SYN, 1, b""))])),
        ("an END of what was never opened", vec![C(vec![Control::End { stream: 5, bytes: 0 }])]),
        ("an END of what this end never opened", vec![C(vec![Control::End { stream: 2, bytes: 0 }])]),
        ("a RESET of what was never opened", vec![C(vec![Control::Reset { stream: 5, reason: Reset::Dropped }])]),
        ("two ENDs", opened(vec![C(vec![Control::End { stream: 1, bytes: 5 }, Control::End { stream: 1, bytes: 5 }])])),
        ("a message after CLOSE", vec![C(vec![Control::Close(Why::Done), Control::Ping(*b"12345678")])]),
        ("GoAway", vec![F(frame(GO_AWAY, 0, 0, 0, b""))]),
        ("a frame of no type", vec![F(frame(4, 0, 0, 0, b""))]),
        ("another version of yamux", vec![F([&[9], &frame(DATA, 0, 1, 0, b"")[1..]].concat())]),
        ("a frame of 2 MiB", opened(vec![F(frame(DATA, 0, 1, 2 << 20, b"x"))])),
        ("a first frame beyond the window", vec![C(vec![open(1)]), F(data(SYN, 1, &[7; 256 * 1024 + 1]))]),
        ("a frame beyond the window", opened(vec![F(data(0, 1, &[7; 256 * 1024]))])),
        ("a window that can not be", opened(vec![F(frame(WINDOW, 0, 1, u32::MAX, b""))])),
        ("a first window that can not be", vec![C(vec![open(1)]), F(frame(WINDOW, SYN, 1, u32::MAX, b""))]),
        ("a pong that nobody asked for", vec![F(frame(PING, ACK, 0, 77, b""))]),
    ];
    run(async move {
        let mut scene = Scene::new(|config| config.limits.sessions_per_peer = 1000).await;
        for (what, said) in cases {
            let (mut member, victim) = scene.meet().await;
            for said in said {
                // It may have hung up.
                let _ = match said {
                    R(plain) => member.says.record(&plain).await,
                    C(messages) => member.says.control(&messages).await,
                    F(bytes) => member.says.frames(&bytes).await,
                };
            }
            let ended = timeout(SOON, victim.ended()).await.unwrap_or_else(|_| panic!("{what} goes unpunished"));
            let closes = what == "a message after CLOSE";
            assert!(
                ended.kind() == ErrorKind::SessionProtocol || (closes && ended.kind() == ErrorKind::SessionClosed),
                "{what}: {ended}"
            );
            if closes {
                // It has its time for the rest of the closing.
                continue;
            }
            timeout(SOON, member.hears.everything()).await.unwrap_or_else(|_| panic!("{what}: the pipe is kept"));
        }
        scene.is_well().await;
    });
}

/// What is nothing against the rules, and nothing that has to be answered.
#[test]
fn what_is_no_offence() {
    run(async {
        let mut scene = Scene::new(|_| {}).await;
        let (mut member, victim) = scene.meet().await;
        member.says.record(&[0]).await.unwrap();
        // Frames of streams that are over, or never were, without SYN.
        for stream in [1, 2, 99] {
            member.says.frames(&data(0, stream, b"late")).await.unwrap();
            member.says.frames(&frame(WINDOW, 0, stream, 1000, b"")).await.unwrap();
            member.says.frames(&data(FIN, stream, b"")).await.unwrap();
            member.says.frames(&data(RST, stream, b"")).await.unwrap();
        }
        member
            .says
            .control(&[Control::Pong([1; 8]), Control::Drain(Why::Done), Control::Drain(Why::Idle)])
            .await
            .unwrap();
        member.says.control(&[open(1), Control::Reset { stream: 1, reason: Reset::Dropped }]).await.unwrap();
        member.says.frames(&data(SYN, 1, b"gone already")).await.unwrap();
        member
            .says
            .control(&[Control::Reset { stream: 1, reason: Reset::Dropped }, Control::Ping(*b"are you?")])
            .await
            .unwrap();
        let mut pong = vec![1, 2];
        pong.extend_from_slice(b"are you?");
        let answered =
            async { while !member.hears.record().await.unwrap().windows(10).any(|bytes| bytes == &pong[..]) {} };
        timeout(SOON, answered).await.expect("it is answered");
        assert!(!victim.status().has_ended);
    });
}

/// What a member may repeat without end, and what makes it so.
fn floods() -> Vec<(&'static str, Said)> {
    let pings = (0..6000).map(|_| Control::Ping([7; 8])).collect();
    let pongs = (0..6000).map(|_| Control::Pong([7; 8])).collect();
    let drains = (0..20_000).map(|_| Control::Drain(Why::Done)).collect();
    let ends = (0..4000).map(|_| Control::Reset { stream: 1, reason: Reset::Dropped }).collect();
    vec![
        ("PINGs", Said::Control(pings)),
        ("one PING a record", Said::Control(vec![Control::Ping([7; 8])])),
        ("PONGs", Said::Control(pongs)),
        ("DRAINs", Said::Control(drains)),
        ("RESETs", Said::Control(ends)),
        ("records without a byte", Said::Record(vec![0])),
        ("yamux's pings", Said::Frames(frame(PING, SYN, 0, 7, b"").repeat(5000))),
        ("empty frames", Said::Frames(data(0, 1, b"").repeat(5000))),
        ("empty window updates", Said::Frames(frame(WINDOW, 0, 1, 0, b"").repeat(5000))),
        ("frames for nobody", Said::Frames(data(0, 77, b"x").repeat(4600))),
    ]
}

/// Nobody reads the answers. Memory stays what it was, and others are served meanwhile.
#[test]
fn floods_cost_no_memory() {
    isolated(|| {
        run(async {
            let mut scene = Scene::new(|config| config.limits.sessions_per_peer = 1000).await;
            scene.is_well().await;
            for (what, said) in floods() {
                let (mut member, victim) = scene.meet().await;
                member.says.control(&[open(1)]).await.unwrap();
                member.says.frames(&data(SYN, 1, b"hello")).await.unwrap();
                let _stream = timeout(SOON, victim.accept()).await.unwrap().unwrap();
                let before = resident();
                let flooding = async {
                    let mut sent = 0_usize;
                    let until = Instant::now() + Duration::from_millis(700);
                    while Instant::now() < until {
                        let done = match &said {
                            Said::Record(plain) => member.says.record(plain).await,
                            Said::Control(messages) => member.says.control(messages).await,
                            Said::Frames(bytes) => member.says.frames(bytes).await,
                        };
                        // Nobody takes more, or nobody is there any more.
                        if done.is_err() {
                            break;
                        }
                        sent += 1;
                    }
                    sent
                };
                let (sent, ()) = tokio::join!(timeout(Duration::from_secs(2), flooding), scene.is_well());
                let grown = resident().saturating_sub(before);
                println!("{what}: {sent:?} records, {} KiB more, {} bytes written", grown >> 10, victim.status().sent);
                assert!(grown < 12 << 20, "{what}: {} KiB more", grown >> 10);
                victim.end(Why::Done);
            }
        });
    });
}

/// Streams beyond the limit are reset, each of them, however many come; and the others' streams are not counted with them.
#[test]
fn streams_beyond_the_limit_are_reset() {
    run(async {
        let mut scene = Scene::new(|config| config.limits.streams_per_peer = 16).await;
        let (mut member, victim) = scene.meet().await;
        let flooding = async {
            for number in (1..4001).step_by(2) {
                member.says.control(&[open(number)]).await.unwrap();
                member.says.frames(&data(SYN, number, b"one of many")).await.unwrap();
            }
        };
        let refused = async {
            let mut refused = 0;
            while refused < 2000 - 16 {
                let record = member.hears.record().await.unwrap();
                if record.first() != Some(&1) {
                    continue;
                }
                let mut rest = &record[1..];
                while !rest.is_empty() {
                    let message = Control::read(&mut rest).unwrap();
                    assert!(matches!(message, Control::Reset { reason: Reset::Limit, .. }), "{message:?}");
                    refused += 1;
                }
            }
        };
        timeout(SOON, async { tokio::join!(flooding, refused) }).await.expect("each is answered");
        let mut kept = Vec::new();
        for _ in 0..16 {
            let mut stream = timeout(SOON, victim.accept()).await.unwrap().unwrap();
            let mut word = [0; 11];
            stream.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"one of many");
            kept.push(stream);
        }
        assert!(timeout(Duration::from_millis(200), victim.accept()).await.is_err());
        let error = victim.open(&"test".parse().unwrap()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::StreamLimit);
        scene.is_well().await;
    });
}

/// Nobody reads at the other end: what is written waits, at a bound, and with it whoever writes.
#[test]
fn a_member_that_never_reads() {
    isolated(|| {
        run(async {
            let mut scene = Scene::new(|_| {}).await;
            let (mut member, victim) = scene.meet().await;
            let before = resident();
            let mut streams = Vec::new();
            for number in (1..201).step_by(2) {
                member.says.control(&[open(number)]).await.unwrap();
                // A window of 4 GiB each, less a little.
                member.says.frames(&frame(WINDOW, SYN, number, 0xffff_0000 - 256 * 1024, b"")).await.unwrap();
                streams.push(timeout(SOON, victim.accept()).await.unwrap().unwrap());
            }
            let writing = streams.into_iter().map(|mut stream| {
                tokio::spawn(async move {
                    let mut written = 0_usize;
                    while let Ok(n) = stream.write(&[7; 64 * 1024]).await {
                        written += n;
                        if written > 1 << 30 {
                            break;
                        }
                    }
                    error_of(stream.write(&[7]).await.unwrap_err()).kind()
                })
            });
            let writing: Vec<_> = writing.collect();
            sleep(Duration::from_secs(2)).await;
            scene.is_well().await;
            let grown = resident().saturating_sub(before);
            println!("{} KiB more, {} bytes written", grown >> 10, victim.status().sent);
            assert!(grown < 40 << 20, "{} KiB more", grown >> 10);
            drop(member);
            for writer in writing {
                let kind = timeout(SOON, writer).await.expect("nobody waits for ever").unwrap();
                assert_eq!(kind, ErrorKind::SessionInterrupted);
            }
        });
    });
}

/// The most that this process has had in memory.
fn peak() -> usize {
    in_memory("VmHWM:")
}

/// yamux keeps each frame's body by itself, so single bytes cost much more than they weigh. Who sends too many of them loses the session.
#[test]
fn crumbs_that_nobody_reads() {
    isolated(|| {
        run(async {
            let limits = |config: &mut claviger::config::Config| {
                (config.limits.streams_per_peer, config.limits.buffer_per_peer) = (16, 4);
            };
            let mut scene = Scene::new(limits).await;
            let (mut member, victim) = scene.meet().await;
            let window = data(0, 1, b"x").repeat(4096);
            member.says.control(&[open(1)]).await.unwrap();
            member.says.frames(&data(SYN, 1, b"")).await.unwrap();
            let mut stream = timeout(SOON, victim.accept()).await.unwrap().unwrap();
            // A whole window of crumbs, and another one when they were read, is what a slow program may send.
            for _ in 0..2 {
                for _ in 0..64 {
                    member.says.frames(&window).await.unwrap();
                }
                let mut crumbs = vec![0; 64 * 4096];
                timeout(SOON, stream.read_exact(&mut crumbs)).await.expect("they come").unwrap();
            }
            let before = in_memory("VmRSS:");
            let sending = async {
                for number in (3..33).step_by(2) {
                    member.says.control(&[open(number)]).await?;
                    member.says.frames(&data(SYN, number, b"")).await?;
                    let crumbs = data(0, number, b"x").repeat(4096);
                    for _ in 0..64 {
                        member.says.frames(&crumbs).await?;
                    }
                }
                std::io::Result::Ok(())
            };
            let (_, ended) = tokio::join!(timeout(SOON, sending), timeout(SOON, victim.ended()));
            assert_eq!(ended.expect("it ends").kind(), ErrorKind::SessionProtocol);
            let grown = peak().saturating_sub(before);
            println!("{} KiB more", grown >> 10);
            assert!(grown < 64 << 20, "{} KiB more", grown >> 10);
            scene.is_well().await;
        });
    });
}

/// Streams that are given up are gone, even while nothing can be sent: their windows are not kept beside those of their successors.
#[test]
fn streams_that_are_given_up_while_nothing_is_read() {
    isolated(|| {
        run(async {
            let mut scene = Scene::new(|_| {}).await;
            let (mut member, victim) = scene.meet().await;
            member.says.control(&[open(1)]).await.unwrap();
            member.says.frames(&frame(WINDOW, SYN, 1, 1 << 30, b"")).await.unwrap();
            let mut stream = timeout(SOON, victim.accept()).await.unwrap().unwrap();
            let writing = tokio::spawn(async move { while stream.write_all(&[7; 64 * 1024]).await.is_ok() {} });
            let dropping = victim.clone();
            let dropping = tokio::spawn(async move { while dropping.accept().await.is_ok() {} });
            sleep(Duration::from_secs(1)).await;
            let before = in_memory("VmRSS:");
            let sending = async {
                let mut sent = 0;
                for number in (3..2803).step_by(2) {
                    member.says.control(&[open(number)]).await?;
                    member.says.frames(&data(SYN, number, &[7; 256 * 1024])).await?;
                    member.says.control(&[Control::Reset { stream: number, reason: Reset::Dropped }]).await?;
                    sent += 1;
                }
                std::io::Result::Ok(sent)
            };
            let sent = timeout(Duration::from_secs(10), sending).await;
            let grown = peak().saturating_sub(before);
            println!("{sent:?} streams, {} KiB more, {:?}", grown >> 10, victim.status());
            assert!(grown < 160 << 20, "{} KiB more", grown >> 10);
            scene.is_well().await;
            drop(member);
            timeout(SOON, async { tokio::join!(writing, dropping) }).await.expect("it is over").0.unwrap();
        });
    });
}

/// `streams-per-peer` counts the streams of all its sessions.
#[test]
fn streams_of_all_sessions_of_a_peer() {
    run(async {
        let mut scene = Scene::new(|config| config.limits.streams_per_peer = 4).await;
        let (mut one, first) = scene.meet().await;
        let (mut other, second) = scene.meet().await;
        let mut kept = Vec::new();
        for number in [1, 3] {
            for (member, victim) in [(&mut one, &first), (&mut other, &second)] {
                member.says.control(&[open(number)]).await.unwrap();
                member.says.frames(&data(SYN, number, b"")).await.unwrap();
                kept.push(timeout(SOON, victim.accept()).await.unwrap().unwrap());
            }
        }
        other.says.control(&[open(5)]).await.unwrap();
        other.says.frames(&data(SYN, 5, b"")).await.unwrap();
        let more = timeout(Duration::from_millis(500), second.accept()).await;
        assert!(more.is_err(), "a fifth stream of four");
        scene.is_well().await;
    });
}

/// A member that calls again and again, and acknowledges no end: its oldest session makes room, by a typed error, and others still have places.
#[test]
fn sessions_beyond_the_limit() {
    run(async {
        let mut scene = Scene::new(|config| (config.limits.sessions_per_peer, config.limits.sessions) = (3, 10)).await;
        let mut met = Vec::new();
        for _ in 0..16 {
            met.push(scene.meet().await);
        }
        for (_, victim) in &met[..13] {
            let ended = timeout(SOON, victim.ended()).await.expect("it made room");
            assert!(
                matches!(ended.kind(), ErrorKind::SessionLimit | ErrorKind::SessionReplaced),
                "{ended}: {:?}",
                ended.kind()
            );
        }
        for (_, victim) in &met[13..] {
            assert!(!victim.status().has_ended);
        }
        scene.is_well().await;
        let peer = scene.cosigner.card.identifier.clone();
        let options = ConnectOptions::DEFAULT.resume(Resume::Never);
        let calling = scene.caller.connect_peer_with(&peer, options);
        let (session, accepted) = tokio::join!(calling, scene.listening.accept());
        talk(&session.unwrap(), &accepted.unwrap()).await;
    });
}

/// A real listener that is stopped, and one whose bytes are swallowed on the way: both are found in bounded time, and streams are told.
#[test]
fn a_peer_that_falls_silent() {
    run(async {
        let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
        wallet.introduce(&mut cosigner);
        (wallet.config.session.keepalive, wallet.config.session.keepalive_timeout) =
            (Duration::from_secs(1), Duration::from_secs(1));
        let store = cosigner.configure(&crate::support::pin_file(&cosigner));
        let mut listener = tokio::process::Command::new(env!("CARGO_BIN_EXE_claviger"))
            .args(["--store", store.to_str().unwrap(), "listen", "--echo"])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let caller = wallet.endpoint(Pattern::Kk1).await;
        let connecting = async {
            loop {
                match caller.connect_peer(&cosigner.card.identifier, None).await {
                    Ok(session) => break session,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}"),
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        let session = timeout(SOON, connecting).await.expect("it listens");
        let mut stream = session.open(&"echo".parse().unwrap()).await.unwrap();
        stream.write_all(b"still there?").await.unwrap();
        let mut answer = [0; 12];
        timeout(SOON, stream.read_exact(&mut answer)).await.expect("it answers").unwrap();
        // Alive for longer than the two together.
        sleep(Duration::from_secs(3)).await;
        assert!(!session.status().has_ended, "it answers for itself");
        let pid = rustix::process::Pid::from_raw(listener.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let begun = Instant::now();
        let ended = timeout(SOON, session.ended()).await.expect("it is found");
        assert_eq!(ended.kind(), ErrorKind::PeerSilent);
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert_eq!(error_of(stream.read(&mut answer).await.unwrap_err()).kind(), ErrorKind::SessionInterrupted);
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        // It goes on, and the session is taken up again without the token.
        let again = timeout(SOON, caller.connect_peer(&cosigner.card.identifier, None)).await.unwrap().unwrap();
        assert!(again.peer().resumed);
        listener.kill().await.unwrap();
    });
}

/// The double of what an idle session is to cost would fail here.
#[test]
fn five_hundred_idle_sessions() {
    isolated(|| {
        run(async {
            let (mut wallet, mut cosigner) = (Machine::software("wallet"), Machine::software("cosigner"));
            wallet.introduce(&mut cosigner);
            for machine in [&mut wallet, &mut cosigner] {
                let limits = &mut machine.config.limits;
                (limits.sessions, limits.sessions_per_peer, limits.per_peer) = (10_000, 10_000, 100);
                machine.config.token.timeout = Duration::from_secs(60);
                machine.config.handshake.timeout = Duration::from_secs(60);
            }
            let (caller, answerer) = (wallet.endpoint(Pattern::Kk1).await, cosigner.endpoint(Pattern::Kk1).await);
            let mut listening = answerer.listen(&cosigner.card.onion_address, 4747).await.unwrap();
            let mut sessions = Vec::new();
            let mut before = 0;
            // Those before the measurement fill the pools and caches that do not grow with them.
            for number in 0..600 {
                if number == 100 {
                    before = resident();
                }
                let options = ConnectOptions::DEFAULT.resume(Resume::Never);
                let calling = caller.connect_peer_with(&cosigner.card.identifier, options);
                let (session, accepted) = tokio::join!(calling, listening.accept());
                let (session, accepted) = (session.unwrap(), accepted.unwrap());
                if number % 100 == 0 {
                    talk(&session, &accepted).await;
                }
                sessions.push((session, accepted));
            }
            sleep(Duration::from_millis(500)).await;
            let each = resident().saturating_sub(before) / 1000;
            println!("{each} bytes an end");
            assert!(each < 12 << 10, "{each} bytes for each end of an idle session");
            assert!(
                sessions.iter().all(|(session, accepted)| !session.status().has_ended && !accepted.status().has_ended)
            );
        });
    });
}
