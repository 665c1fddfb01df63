//! TLS to the broker, and a password from a file: what `nats/README.md` shows, taken from it as it stands.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::engine::{Exchange, Image, root, run};

/// The README's blocks in this language.
fn blocks(language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("nats/README.md")).unwrap();
    let fence = format!("```{language}\n");
    let parts = text.split(&fence).skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default().to_owned()).collect()
}

pub(crate) fn tls_and_files(image: &Image) {
    let mut exchange = Exchange::prepare(image, "compose.yaml", |text| text);
    let tls = exchange.path("tls");
    std::fs::create_dir(&tls).unwrap();
    for script in blocks("sh") {
        run(Command::new("sh").args(["-ec", &script]).current_dir(&tls));
    }
    std::fs::write(exchange.path("order-password"), "order-change-me\n").unwrap();
    for file in ["tls/server-key.pem", "order-password"] {
        set_permissions(exchange.path(file), Permissions::from_mode(0o644)).unwrap();
    }
    for changes in blocks("yaml") {
        exchange.change(&changes);
    }
    exchange.set("NATS_CA=/etc/trade-net-ca.pem");
    exchange.start();
    exchange.buy();
    assert!(exchange.log("nats").contains("TLS required for client connections"));
    let order_1 = exchange.compose(&["exec", "-T", "order-1", "env"]);
    assert!(order_1.contains("NATS_PASSWORD_FILE=") && !order_1.contains("order-change-me"), "{order_1}");
    let unencrypted = ["run", "--rm", "--no-deps", "--env", "NATS_CA=", "operator", "status"];
    assert!(!exchange.try_compose(&unencrypted).status.success(), "who does not check the broker gets nothing");
    exchange.stop_and_verify(image);
}
