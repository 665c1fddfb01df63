//! Volumes that are full, and volumes that are gone.

use crate::engine::{Exchange, Image, docker, output, run, until};

/// A volume in memory, small enough to be filled.
const SMALL: &str = "    driver_opts: {type: tmpfs, device: tmpfs, o: \"size=4m,uid=10001,gid=10001\"}";

pub(crate) fn a_full_disk(image: &Image) {
    let exchange = Exchange::up_with(image, |text| {
        // The volumes stand at the end of the file, each on a line of its own.
        let (services, volumes) = text.split_once("\nvolumes:\n").unwrap();
        let volumes = [1, 3].iter().fold(volumes.to_owned(), |volumes, id| {
            volumes.replace(&format!("  order-{id}:\n"), &format!("  order-{id}:\n{SMALL}\n"))
        });
        format!("{services}\nvolumes:\n{volumes}")
    });
    for (id, others) in [(1, [2, 3]), (3, [1, 2])] {
        let mount = format!("{}:/disk", exchange.volume(&format!("order-{id}")));
        let in_volume = |script: &str| {
            docker(&["run", "--rm", "--user", "0", "--entrypoint", "sh", "--volume", &mount, &image.name, "-c", script])
        };
        // It fails for lack of room, as it should.
        output(&mut in_volume("dd if=/dev/zero of=/disk/ballast bs=64k count=1024 2>/dev/null; sync"));
        let load = exchange.trade(3);
        assert!(load.ok(), "{load}");
        exchange.until_in_sync(&others);
        assert!(exchange.log(&format!("order-{id}")).contains("the disk is full"), "order-{id} says so");
        exchange.buy();
        run(&mut in_volume("rm /disk/ballast"));
        exchange.until_whole();
        exchange.buy();
    }
    // Volumes in memory are gone when their containers stop, so there is nothing to compare at the end.
}

pub(crate) fn a_removed_volume(image: &Image) {
    let exchange = Exchange::up(image);
    let before = exchange.trade(2);
    assert!(before.ok(), "{before}");
    for id in [1, 3] {
        let (name, volume) = (format!("order-{id}"), exchange.volume(&format!("order-{id}")));
        exchange.compose(&["rm", "--stop", "--force", &name]);
        until("the volume can be removed", || docker(&["volume", "rm", &volume]).output().unwrap().status.success());
        exchange.buy();
        exchange.compose(&["up", "--detach", "--no-build", &name]);
        exchange.until_whole();
    }
    exchange.stop_and_verify(image);
}
