//! The certificates of a server with TLS, made by the program `openssl`.

use std::path::Path;
use std::process::{Command, Stdio};

/// Makes an authority, and a server of this name whose certificate it has signed: `DNS:localhost`.
/// The files are `authority.crt`, `server.crt` and `server.key`.
pub(crate) fn certify(path: &Path, name: &str) {
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).current_dir(path);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().expect("openssl");
        assert!(status.success(), "openssl {words}");
    };
    let extensions = format!("subjectAltName={name}\n");
    std::fs::write(path.join("extensions"), extensions).expect("written");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout authority.key -out authority.crt -days 2 -subj /CN=authority"
    ));
    openssl(&format!(
        "req {key} -keyout server.key -out server.csr -subj /CN=server"
    ));
    openssl(
        "x509 -req -in server.csr -CA authority.crt -CAkey authority.key -CAcreateserial -days 2 -extfile extensions -out server.crt",
    );
}
