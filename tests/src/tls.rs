//! TLS before a server that has none: `socat` with a certificate of its own authority.

use crate::{World, programs};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// Ends TLS and passes everything on.
#[derive(Debug)]
pub struct Tls {
    child: Child,
    port: u16,
    certificate: PathBuf,
}

impl Tls {
    /// Starts one before an address, unless the programs for it are not installed.
    ///
    /// # Panics
    /// No certificate can be made, or nothing listens.
    pub fn before(world: &World, address: &str) -> Option<Self> {
        let (openssl, socat) = (programs::need("openssl")?, programs::need("socat")?);
        let dir = world.path("$HOME/tls");
        world.mkdirs(&dir);
        let (key, certificate) = (dir.join("key.pem"), dir.join("certificate.pem"));
        let made = world
            .command(&openssl)
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args([
                "-subj",
                "/CN=upstream",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl");
        assert!(made.status.success(), "{made:?}");
        let mut child = world
            .command(&socat)
            .args(["-d", "-d"])
            .arg(format!(
                "OPENSSL-LISTEN:0,bind=127.0.0.1,fork,verify=0,key={},cert={}",
                key.display(),
                certificate.display()
            ))
            .arg(format!("TCP:{address}"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("socat");
        let mut told = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let port = told
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let address = line.split_once(" listening on ")?.1;
                address.rsplit_once(':')?.1.parse().ok()
            })
            .expect("socat tells its port");
        // What it says about connections must not fill the pipe.
        std::thread::spawn(move || told.for_each(drop));
        Some(Self {
            child,
            port,
            certificate,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Who trusts this certificate trusts the server.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
