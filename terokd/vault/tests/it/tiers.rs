//! Where the passphrase comes from, in which order, and what happens when a place does not work.

use crate::programs::need;
use crate::world::{World, secret, settled};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;
use terok_proto::Kind;
use terok_proto::vault::{PassphraseSource, VaultState};
use terok_vault::{ConfigKey, SessionBus, Settings, Unassigned, VaultEvent};

/// A hang guard, not a measurement.
const GUARD: Duration = Duration::from_secs(120);

/// A world with a vault whose passphrase only the test knows.
async fn closed(passphrase: &str) -> World {
    let world = World::new();
    let vault = world.vault();
    vault
        .provision(
            Some(PassphraseSource::SessionFile),
            Some(secret(passphrase)),
        )
        .await
        .unwrap();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    vault.lock(false, false).await.unwrap();
    world
}

fn script(world: &World, name: &str, body: &str) -> PathBuf {
    let path = world.dir.path().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A `systemd-creds` of release 257 that seals by writing backwards and notes its arguments.
fn with_systemd_creds(world: &World, settings: &mut Settings) -> std::os::unix::net::UnixListener {
    settings.systemd_creds = script(
        world,
        "systemd-creds",
        r#"echo "$@" >> "$(dirname "$0")/arguments"
case $1 in
  --version) echo "systemd 257 (257.4-1)"; echo +PAM;;
  encrypt) rev;;
  decrypt) rev < "$4";;
esac"#,
    );
    settings.systemd_creds_socket = world.dir.path().join("creds.sock");
    std::os::unix::net::UnixListener::bind(&settings.systemd_creds_socket).unwrap()
}

#[tokio::test]
async fn a_command_is_run_without_a_shell() {
    let world = closed("Pass wort").await;
    let mut settings = world.settings();
    let helper = script(&world, "my helper", r#"printf '%s\r\n' "$1""#);
    settings.passphrase_command = Some(secret(&format!(
        "'{}' 'Pass wort' '; touch /tmp/x'",
        helper.display()
    )));
    let status = settled(&world.vault_with(settings)).await;
    assert_eq!(status.state, VaultState::Unlocked, "{status:?}");
    assert_eq!(
        status.passphrase_source,
        Some(PassphraseSource::PassphraseCommand)
    );
}

#[tokio::test]
async fn a_command_that_fails_ends_the_search_and_is_not_quoted() {
    for body in [
        "exit 1",
        "true",
        "printf '\\n'",
        "echo secret; exit 3",
        "head -c 100000 /dev/zero",
    ] {
        let world = closed("right").await;
        world.configure("right");
        let mut settings = world.settings_now();
        let helper = script(&world, "helper", body);
        settings.passphrase_command = Some(secret(&format!("{} hunter2", helper.display())));
        let vault = world.vault_with(settings);
        let fault = vault.all_keys().await.unwrap_err();
        assert_eq!(fault.kind, Kind::VaultTierFailed, "{body}");
        assert_eq!(fault.data["source"], "passphrase-command");
        let shown = format!("{fault:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("secret"),
            "{shown}"
        );
        let status = settled(&vault).await;
        assert_eq!(
            (status.state, status.locked),
            (VaultState::TierBroken, true)
        );
        assert!(status.error.is_some());
    }
}

#[tokio::test]
async fn a_slow_command_delays_nobody_who_does_not_need_it() {
    let world = closed("right").await;
    let mut settings = world.settings();
    let fifo = world.dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let counted = world.dir.path().join("runs");
    let helper = script(
        &world,
        "helper",
        &format!(
            "echo run >> '{}'; cat '{}'",
            counted.display(),
            fifo.display()
        ),
    );
    settings.passphrase_command = Some(secret(helper.to_str().unwrap()));
    let vault = world.vault_with(settings);
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let vault = vault.clone();
            tokio::spawn(async move { vault.all_keys().await })
        })
        .collect();
    let status = vault.status().await;
    assert_eq!(status.state, VaultState::Locked);
    assert!(status.error.unwrap().contains("not answered"));
    assert!(waiting.iter().all(|call| !call.is_finished()));
    // One attempt for all, and it ends well once the command does.
    tokio::task::spawn_blocking(move || std::fs::write(fifo, "right\n"))
        .await
        .unwrap()
        .unwrap();
    for call in waiting {
        assert_eq!(
            tokio::time::timeout(GUARD, call)
                .await
                .unwrap()
                .unwrap()
                .unwrap()
                .len(),
            1
        );
    }
    assert_eq!(std::fs::read_to_string(counted).unwrap(), "run\n");
}

#[tokio::test]
async fn a_lock_wins_over_an_attempt_under_way() {
    let world = closed("right").await;
    let mut settings = world.settings();
    let (begun, fifo) = (
        world.dir.path().join("begun"),
        world.dir.path().join("fifo"),
    );
    for pipe in [&begun, &fifo] {
        nix::unistd::mkfifo(pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let helper = script(
        &world,
        "helper",
        &format!("echo > '{}'; cat '{}'", begun.display(), fifo.display()),
    );
    settings.passphrase_command = Some(secret(helper.to_str().unwrap()));
    let vault = world.vault_with(settings);
    let call = tokio::spawn({
        let vault = vault.clone();
        async move { vault.all_keys().await }
    });
    tokio::task::spawn_blocking(move || std::fs::read(begun))
        .await
        .unwrap()
        .unwrap();
    vault.lock(false, false).await.unwrap();
    tokio::task::spawn_blocking(move || std::fs::write(fifo, "right\n"))
        .await
        .unwrap()
        .unwrap();
    let fault = tokio::time::timeout(GUARD, call)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(fault.kind, Kind::VaultLocked);
    assert!(!vault.is_unlocked());
}

#[tokio::test]
async fn the_order_of_the_tiers() {
    let world = closed("right").await;
    let mut settings = world.settings();
    let _socket = with_systemd_creds(&world, &mut settings);
    // Every later place has a wrong one; each is asked only when those before are gone.
    settings.config_passphrase = Some(secret("right"));
    let source = async |settings: &Settings| {
        settled(&world.vault_with(settings.clone()))
            .await
            .passphrase_source
    };
    assert_eq!(source(&settings).await, Some(PassphraseSource::Config));
    let helper = script(&world, "helper", "echo right");
    settings.passphrase_command = Some(secret(helper.to_str().unwrap()));
    settings.config_passphrase = Some(secret("wrong"));
    assert_eq!(
        source(&settings).await,
        Some(PassphraseSource::PassphraseCommand)
    );
    settings.passphrase_command = Some(secret("false"));
    let sealed = world.dir.path().join("vault/vault.passphrase.cred");
    std::fs::write(&sealed, "thgir").unwrap();
    assert_eq!(
        source(&settings).await,
        Some(PassphraseSource::SystemdCreds)
    );
    // An empty session file is none.
    std::fs::write(world.session_file(), "\n").unwrap();
    assert_eq!(
        source(&settings).await,
        Some(PassphraseSource::SystemdCreds)
    );
    std::fs::write(&sealed, "gnorw").unwrap();
    std::fs::write(world.session_file(), "right\n\n").unwrap();
    assert_eq!(source(&settings).await, Some(PassphraseSource::SessionFile));
}

#[tokio::test]
async fn a_file_that_appears_opens_it_without_being_asked_to() {
    let world = closed("right").await;
    let vault = world.vault();
    assert_eq!(vault.all_keys().await.unwrap_err().kind, Kind::VaultLocked);
    assert_eq!(settled(&vault).await.state, VaultState::Locked);
    std::fs::write(world.session_file(), "right\n").unwrap();
    assert_eq!(vault.all_keys().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_changed_configuration_opens_it() {
    let world = closed("right").await;
    let vault = world.vault();
    assert_eq!(vault.all_keys().await.unwrap_err().kind, Kind::VaultLocked);
    let mut events = vault.events();
    world.configure("right");
    vault.configure(world.settings_now());
    let event = tokio::time::timeout(GUARD, events.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event, VaultEvent::Unlocked);
    assert_eq!(
        settled(&vault).await.passphrase_source,
        Some(PassphraseSource::Config)
    );
}

#[tokio::test]
async fn another_directory_is_another_vault() {
    let world = World::new();
    let vault = world.vault();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    let socket = vault.host_agent("orion").await.unwrap();
    let mut events = vault.events();
    let mut settings = world.settings_now();
    settings.vault_dir = world.dir.path().join("elsewhere");
    vault.configure(settings);
    assert_eq!(events.recv().await.unwrap(), VaultEvent::Locked);
    assert!(!socket.exists());
    assert_eq!(settled(&vault).await.state, VaultState::Absent);
    assert!(vault.keys("orion").await.unwrap().is_empty());
}

#[tokio::test]
async fn sealing() {
    let world = World::new();
    let mut settings = world.settings();
    let _socket = with_systemd_creds(&world, &mut settings);
    let vault = world.vault_with(settings.clone());
    // On a fresh machine it is the first choice.
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    let status = settled(&vault).await;
    assert_eq!(
        status.passphrase_source,
        Some(PassphraseSource::SystemdCreds)
    );
    assert!(status.warnings.is_empty() && world.config.passphrase().is_none());
    let sealed = world.dir.path().join("vault/vault.passphrase.cred");
    assert_eq!(
        sealed.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        vault.seal(Some("tpm2")).await.unwrap_err().kind,
        Kind::InvalidArgument
    );
    vault.seal(Some("tpm+host")).await.unwrap();
    let arguments = std::fs::read_to_string(world.dir.path().join("arguments")).unwrap();
    let calls: Vec<&str> = arguments
        .lines()
        .filter(|line| *line != "--version")
        .collect();
    assert_eq!(
        calls,
        [
            "encrypt --user --name=terok-sandbox.vault-passphrase --with-key=auto - -",
            &format!(
                "decrypt --user --name=terok-sandbox.vault-passphrase {} -",
                sealed.display()
            ),
            "encrypt --user --name=terok-sandbox.vault-passphrase --with-key=host+tpm2 - -",
        ]
    );
    // A sealed file that does not open ends the search, whatever comes after.
    vault.shutdown().await;
    settings.systemd_creds = script(&world, "broken", "exit 1");
    settings.config_passphrase = Some(secret("x"));
    let fault = world.vault_with(settings).all_keys().await.unwrap_err();
    assert_eq!(
        (fault.kind, &fault.data["source"]),
        (Kind::VaultTierFailed, &"systemd-creds".into())
    );
}

#[tokio::test]
async fn sealing_needs_a_recent_systemd_and_refuses_links() {
    let world = World::new();
    let mut settings = world.settings();
    let socket = with_systemd_creds(&world, &mut settings);
    world
        .vault()
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    settings.config_passphrase = world.config.passphrase();
    let sealed = world.dir.path().join("vault/vault.passphrase.cred");
    let elsewhere = world.dir.path().join("elsewhere");

    let mut old = settings.clone();
    old.systemd_creds = script(&world, "old", "echo 'systemd 252 (252.39)'");
    let fault = world.vault_with(old).seal(None).await.unwrap_err();
    assert_eq!(fault.kind, Kind::VaultTierFailed);
    assert!(fault.message.contains("252"), "{fault}");

    // A broken link counts as a sealed file that cannot be opened, so it is put there after the vault is open.
    let vault = world.vault_with(settings.clone());
    assert!(vault.has_keys("orion").await.unwrap());
    std::os::unix::fs::symlink(&elsewhere, &sealed).unwrap();
    let fault = vault.seal(None).await.unwrap_err();
    assert!(fault.message.contains("symbolic link"), "{fault}");
    assert!(!elsewhere.exists());
    std::fs::remove_file(&sealed).unwrap();

    drop(socket);
    std::fs::remove_file(&settings.systemd_creds_socket).unwrap();
    assert_eq!(
        vault.seal(None).await.unwrap_err().kind,
        Kind::VaultTierFailed
    );
}

/// Release 257 seals what an ordinary user asks for to whatever it would choose itself, and says nothing.
#[tokio::test]
async fn sealing_to_something_else_than_asked_for_is_refused() {
    // What it puts in front: the machine's key, and the same with the TPM's, without and with a policy of public keys.
    const MACHINE: &str = "VbntHThZTUOoMZ0uuzMqxiAAAAABAAAADAAAABAAAADtLvtHwa6OEKz4TnMA";
    const BOTH: &str = "70rBNnmpSA6n22iJf58WXSAAAAABAAAADAAAABAAAADtLvtHwa6OEKz4TnMA";
    const BOTH_SIGNED: &str = "rbxMo++2QgG6iBtvLkCV6iAAAAABAAAADAAAABAAAADtLvtHwa6OEKz4TnMA";
    let world = World::new();
    let mut settings = world.settings();
    let _socket = with_systemd_creds(&world, &mut settings);
    let vault = world.vault_with(settings.clone());
    vault.provision(None, None).await.unwrap();
    let sealed = world.dir.path().join("vault/vault.passphrase.cred");
    let before = std::fs::read(&sealed).unwrap();
    for (key, written, wanted) in [
        ("tpm+host", MACHINE, Some("TPM")),
        ("tpm", MACHINE, Some("TPM")),
        ("host", BOTH, Some("TPM")),
        ("host", BOTH_SIGNED, Some("TPM")),
        ("host", MACHINE, None),
        ("tpm+host", BOTH, None),
        ("tpm+host", BOTH_SIGNED, None),
        ("auto", MACHINE, None),
        ("auto", BOTH, None),
        ("tpm+host", "bmV3IGtpbmQ=", None),
    ] {
        std::fs::write(&sealed, &before).unwrap();
        script(
            &world,
            "systemd-creds",
            &format!("case $1 in --version) echo systemd 257;; encrypt) echo {written};; esac"),
        );
        let result = vault.seal(Some(key)).await;
        let now = std::fs::read_to_string(&sealed).unwrap();
        match wanted {
            None => {
                result.unwrap();
                assert_eq!(now.trim(), written, "{key}");
            }
            Some(word) => {
                let fault = result.expect_err(&format!("{key} {written}"));
                assert_eq!(fault.kind, Kind::VaultTierFailed, "{key} {written}");
                assert!(fault.message.contains(word), "{key} {written}: {fault}");
                assert_eq!(now.as_bytes(), before, "what was sealed before is gone");
            }
        }
    }
    // Alone, the TPM is refused to users by every release: that is told, not left to be guessed.
    script(
        &world,
        "systemd-creds",
        "case $1 in --version) echo systemd 257;; *) exit 1;; esac",
    );
    let fault = vault.seal(Some("tpm")).await.unwrap_err();
    assert!(fault.message.contains("`tpm+host`"), "{fault}");
}

#[tokio::test]
async fn provisioning_by_hand() {
    let world = World::new();
    let vault = world.vault();
    for bad in ["", "a\nb", "a\0b"] {
        let fault = vault.provision(None, Some(secret(bad))).await.unwrap_err();
        assert_eq!(fault.kind, Kind::InvalidArgument, "{bad:?}");
    }
    let fault = vault
        .provision(Some(PassphraseSource::PassphraseCommand), None)
        .await
        .unwrap_err();
    assert_eq!(fault.kind, Kind::InvalidArgument);
    for tier in [PassphraseSource::SystemdCreds, PassphraseSource::Keyring] {
        let fault = vault.provision(Some(tier), None).await.unwrap_err();
        assert_eq!(
            (fault.kind, &fault.data["source"]),
            (Kind::VaultTierFailed, &tier.label().into())
        );
    }
    assert_eq!(
        vault.unlock(Some(secret("x"))).await.unwrap_err().kind,
        Kind::InvalidArgument
    );
    assert!(!world.database().exists());
    let status = vault
        .provision(
            Some(PassphraseSource::SessionFile),
            Some(secret("o'Brien's Schlüssel")),
        )
        .await
        .unwrap();
    assert_eq!(
        (status.state, status.recovery.urgent),
        (VaultState::Unlocked, true)
    );
    assert_eq!(status.warnings.len(), 1);
    let status = vault.acknowledge_recovery().await.unwrap();
    assert!(status.recovery.acknowledged && !status.recovery.urgent);
    assert!(status.warnings.is_empty());
    let fault = vault.provision(None, None).await.unwrap_err();
    assert_eq!(fault.kind, Kind::AlreadyExists);
}

/// A passphrase that the user set before there was a database is used, and none is made up.
#[tokio::test]
async fn a_passphrase_that_is_there_is_used() {
    let world = World::new();
    world.configure("chosen");
    world
        .vault()
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    assert_eq!(world.config.passphrase(), Some(secret("chosen")));
    assert!(world.vault().has_keys("orion").await.unwrap());
    let fault = World::new();
    fault.configure("chosen");
    let fault = fault
        .vault()
        .provision(None, Some(secret("other")))
        .await
        .unwrap_err();
    assert_eq!(fault.kind, Kind::InvalidArgument);
}

#[tokio::test]
async fn forgetting_needs_a_confirmation_and_leaves_nothing() {
    let world = World::new();
    let mut settings = world.settings();
    let _socket = with_systemd_creds(&world, &mut settings);
    settings.passphrase_command = Some(secret("echo x"));
    settings.config_passphrase = Some(secret("right"));
    world.configure("right");
    let vault = world.vault_with({
        let mut plain = settings.clone();
        plain.passphrase_command = None;
        plain
    });
    vault.provision(None, None).await.unwrap();
    vault.seal(None).await.unwrap();
    vault.acknowledge_recovery().await.unwrap();
    vault.unlock(Some(secret("right"))).await.unwrap();
    let fault = vault.lock(true, false).await.unwrap_err();
    assert_eq!(fault.kind, Kind::ConfirmationRequired);
    assert!(vault.is_unlocked());
    let left = vault.lock(true, true).await.unwrap();
    assert!(left.remaining_tiers.is_empty(), "{left:?}");
    let dir = world.dir.path();
    for gone in [
        "run/vault.passphrase",
        "vault/vault.passphrase.cred",
        "vault/vault.recovery_acknowledged",
    ] {
        assert!(!dir.join(gone).exists(), "{gone}");
    }
    assert!(world.config.passphrase().is_none());
    assert!(world.database().exists());
    assert_eq!(
        vault.unlock(None).await.unwrap_err().kind,
        Kind::VaultLocked
    );
    vault.unlock(Some(secret("right"))).await.unwrap();
}

#[tokio::test]
async fn panic_closes_it_and_keeps_it_closed() {
    let world = World::new();
    let vault = world.vault();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    let passphrase = world.config.passphrase().unwrap();
    vault.unlock(Some(passphrase.clone())).await.unwrap();
    let socket = vault.host_agent("orion").await.unwrap();
    let mut events = vault.events();
    world.panicked.store(true, Ordering::SeqCst);
    vault.panic().await.unwrap();
    assert_eq!(events.recv().await.unwrap(), VaultEvent::Locked);
    assert!(!socket.exists() && !world.session_file().exists());
    for fault in [
        vault.unlock(None).await.unwrap_err(),
        vault.unlock(Some(passphrase)).await.unwrap_err(),
        vault.all_keys().await.unwrap_err(),
        vault
            .provision_key("orion", None, None, false)
            .await
            .unwrap_err(),
        vault.host_agent("orion").await.unwrap_err(),
        vault.seal(None).await.unwrap_err(),
    ] {
        assert_eq!(fault.kind, Kind::Panicked);
    }
    assert!(!world.session_file().exists());
    assert_eq!(settled(&vault).await.state, VaultState::Panicked);
    assert_eq!(
        vault.unassign_all_or_later("orion").await.unwrap(),
        Unassigned::Later
    );
    // Cleared: what is on disk opens it again.
    world.panicked.store(false, Ordering::SeqCst);
    assert!(!vault.has_keys("orion").await.unwrap());
}

#[tokio::test]
async fn a_database_that_was_exchanged_is_opened_anew() {
    let world = World::new();
    let vault = world.vault();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", world.database().display());
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(settled(&vault).await.state, VaultState::Absent);
    assert!(vault.all_keys().await.unwrap().is_empty());
    // The passphrase is where it was.
    let key = vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    assert_eq!(
        (key.created, vault.all_keys().await.unwrap().len()),
        (true, 1)
    );
}

/// A session bus of the test's own, with a keyring that is open.
struct Desktop {
    bus: Child,
    keyring: Option<Child>,
    address: String,
}

impl Drop for Desktop {
    fn drop(&mut self) {
        for child in [self.keyring.as_mut(), Some(&mut self.bus)]
            .into_iter()
            .flatten()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Desktop {
    fn bus(home: &Path) -> Option<Self> {
        let program = need("dbus-daemon")?;
        let mut bus = Command::new(program)
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
            // By default it makes a socket in the system's temporary directory, and leaves it there when it is killed.
            .arg(format!(
                "--address=unix:path={}",
                home.join("bus").display()
            ))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(bus.stdout.as_mut().unwrap())
            .read_line(&mut address)
            .unwrap();
        Some(Self {
            bus,
            keyring: None,
            address: address.trim().to_owned(),
        })
    }

    fn start(home: &Path) -> Option<Self> {
        let program = need("gnome-keyring-daemon")?;
        let mut desktop = Self::bus(home)?;
        let mut keyring = Command::new(program)
            .args(["--foreground", "--unlock", "--components=secrets"])
            .env_clear()
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", home)
            .env("DBUS_SESSION_BUS_ADDRESS", &desktop.address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut keyring.stdin.take().unwrap(), b"login").unwrap();
        // It says where its control socket is when it has read the password.
        let mut line = String::new();
        BufReader::new(keyring.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        desktop.keyring = Some(keyring);
        Some(desktop)
    }

    fn settings(&self, world: &World) -> Settings {
        let mut settings = world.settings_now();
        settings.session_bus = SessionBus::Address(self.address.clone());
        settings
    }

    fn secret_tool(&self, arguments: &[&str]) -> String {
        let output = Command::new("secret-tool")
            .args(arguments)
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_desktops_keyring() {
    let world = World::new();
    if need("secret-tool").is_none() {
        return;
    }
    let Some(desktop) = Desktop::start(world.dir.path()) else {
        return;
    };
    let item = ["service", "terok-sandbox", "username", "credentials-db"];
    let lookup = || desktop.secret_tool(&[&["lookup"][..], &item].concat());

    // A vault whose passphrase is in the configuration moves over.
    let vault = world.vault();
    vault
        .provision_key("orion", None, None, false)
        .await
        .unwrap();
    let passphrase = world.config.passphrase().unwrap();
    drop(vault);
    let vault = world.vault_with(desktop.settings(&world));
    let status = vault.to_keyring().await.unwrap();
    assert_eq!(status.passphrase_source, Some(PassphraseSource::Keyring));
    assert!(status.warnings.is_empty(), "{:?}", status.warnings);
    assert_eq!(lookup(), passphrase.expose());
    assert!(world.config.passphrase().is_none());
    assert!(world.config.get(ConfigKey::UseKeyring).is_some());
    drop(vault);

    // After a restart it opens from there.
    let vault = world.vault_with(desktop.settings(&world));
    assert!(vault.has_keys("orion").await.unwrap());
    assert_eq!(
        vault.to_keyring().await.unwrap().passphrase_source,
        Some(PassphraseSource::Keyring)
    );
    let left = vault.lock(false, false).await.unwrap();
    assert_eq!(left.remaining_tiers, [PassphraseSource::Keyring]);
    vault.unlock(None).await.unwrap();
    vault.lock(true, true).await.unwrap();
    assert_eq!(lookup(), "");

    // On a fresh machine with a desktop it is chosen by itself.
    let fresh = World::new();
    let vault = fresh.vault_with(desktop.settings(&fresh));
    vault
        .provision_key("lyra", None, None, false)
        .await
        .unwrap();
    assert_eq!(
        settled(&vault).await.passphrase_source,
        Some(PassphraseSource::Keyring)
    );
    assert!(fresh.config.passphrase().is_none());
    assert_eq!(lookup().len(), 43);
}

#[tokio::test]
async fn a_bus_without_a_keyring_is_passed_over() {
    let home = tempfile::tempdir().unwrap();
    let Some(desktop) = Desktop::bus(home.path()) else {
        return;
    };
    let world = closed("right").await;
    world.configure("right");
    let mut settings = desktop.settings(&world);
    settings.use_keyring = true;
    let vault = world.vault_with(settings);
    assert_eq!(
        settled(&vault).await.passphrase_source,
        Some(PassphraseSource::Config)
    );
    let fault = vault.to_keyring().await.unwrap_err();
    assert_eq!(
        (fault.kind, &fault.data["source"]),
        (Kind::VaultTierFailed, &"keyring".into())
    );
    assert!(
        world.config.passphrase().is_some(),
        "nothing is destroyed before it is stored"
    );
}

/// A service that accepts and never answers, as one that shows a dialog.
#[tokio::test]
async fn a_keyring_that_hangs_is_passed_over() {
    let world = closed("right").await;
    world.configure("right");
    let silent = world.dir.path().join("bus");
    let _listener = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    let mut settings = world.settings_now();
    settings.session_bus = SessionBus::Address(format!("unix:path={}", silent.display()));
    settings.use_keyring = true;
    let vault = world.vault_with(settings);
    let keys = tokio::time::timeout(GUARD, vault.all_keys())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(keys.len(), 1);
}
