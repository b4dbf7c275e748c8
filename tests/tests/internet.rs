//! The simulated internet under real programs: names, web servers, scripted peers, the capture, and nothing beyond.
#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use hotcell_tests::{Busybox, Lab, Run, busybox};
use serde_json::{Value, json};

const SCRIPT: &str = "cd /tmp
wget -q -O page http://pages.example/run.sh && cat page
wget -q -O - http://files.example/dir/file; wget -q -O - http://files.example/none || echo none
wget -q -O - http://nobody.example/any
wget -q -O - http://gone.example/ || echo gone
wget -q -O - http://named.example:8080/x
wget -q -O big http://files.example/big && sha256sum < big
echo ready | nc c2.example 4444
nc silent.example 9999 < big && echo all of it
nc 127.0.0.1 81 || echo closed
";

fn programs() -> Option<Vec<Busybox>> {
    let mut all = busybox()?;
    all.dedup_by_key(|one| one.arch);
    Some(all)
}

fn manifest(lab: &Lab, all: &[Busybox], with: &Value, script: &str) {
    for one in all {
        fs::create_dir_all(lab.path("bin")).unwrap();
        fs::copy(&one.path, lab.path(&format!("bin/{}", one.debian))).unwrap();
    }
    let mut settings = json!({
        "path": "/bin/busybox",
        "args": ["sh", "/script"],
        "files": {"/script": script},
    });
    for (key, value) in with.as_object().unwrap() {
        settings[key] = value.clone();
    }
    lab.manifest(
        "net.yaml",
        &json!({
            "hotcell": 1,
            "name": "net",
            "sources": {"site": {"kind": "folder", "path": "site"}},
            "samples": {"all": {"glob": "bin/*"}},
            "stages": {"run": {
                "uses": "unicorn/linux",
                "for-each": {"sample": "samples.all"},
                "in": {"file": "${sample.file}"},
                "with": settings,
            }},
        }),
    );
}

fn internet() -> Value {
    json!({"network": "sink", "internet": {
        "web": ["site"],
        "pages": {"http://pages.example/run.sh": "a page\n", "http://named.example:8080/x": "another\n"},
        "hosts": {"named.example": "203.0.113.9"},
        "unknown": ["gone.example"],
        "peers": [{"host": "c2.example", "port": 4444, "script": [
            {"send": "who\n"}, {"expect": "ready"}, {"send-hex": "676f0a"}, "close",
        ]}],
    }})
}

fn stdout(run: &Run) -> Vec<(String, String)> {
    let of = |instance| String::from_utf8(run.output(instance, "stdout")).unwrap();
    run.stage("run")
        .map(|instance| (instance.name.clone(), of(instance)))
        .collect()
}

/// What tshark shows of a capture.
fn tshark_reads(file: &Path, filter: &str) -> String {
    let output = Command::new("tshark")
        .args([
            "-o",
            "ip.check_checksum:TRUE",
            "-o",
            "tcp.check_checksum:TRUE",
            "-o",
            "udp.check_checksum:TRUE",
        ])
        .args(["-n", "-r"])
        .arg(file)
        .args(["-Y", filter])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_guest_meets_who_is_declared_and_the_capture_has_it_all() {
    let Some(all) = programs() else { return };
    let lab = Lab::new();
    let big: Vec<u8> = (0..600_000u32).map(|number| (number % 251) as u8).collect();
    lab.write("site/files.example/dir/file", "a file\n");
    lab.write("site/files.example/big", &big);
    manifest(&lab, &all, &internet(), SCRIPT);
    let run = lab.run("net.yaml", &[]);
    let digest = hotcell_schema::digest::Digest::of(&big);
    let expected = format!(
        "a page\na file\nnone\n<html><head><title>It works</title></head><body><p>It works.</p></body></html>\ngone\nanother\n{digest}  -\nwho\ngo\nall of it\nclosed\n"
    );
    for (name, text) in stdout(&run) {
        assert_eq!(text, expected, "{name}");
    }
    let again = Lab::new();
    lab.forget_latest();
    for (name, bytes) in hotcell_tests::files_below(&lab.path("site")) {
        again.write(&format!("site/{name}"), bytes);
    }
    manifest(&again, &all, &internet(), SCRIPT);
    run.assert_same_result(&again.run("net.yaml", &[]), "another folder");
    let tshark = Command::new("tshark").arg("--version").output().is_ok();
    if !tshark {
        eprintln!("SKIPPED in part: this host has no tshark, which reads the captures");
    }
    for instance in run.stage("run") {
        let capture = run.output(instance, "pcap");
        assert_eq!(
            capture.get(..4),
            Some(&[0x4d, 0x3c, 0xb2, 0xa1][..]),
            "{}",
            instance.name
        );
        let events = String::from_utf8(run.output(instance, "events")).unwrap();
        for told in [
            r#""op":"resolve","protocol":"udp","peer":"203.0.113.9","host":"named.example""#,
            r#""op":"resolve","protocol":"udp","host":"gone.example""#,
            r#""request":"GET http://files.example/big""#,
            r#""request":"GET http://named.example:8080/x""#,
        ] {
            assert!(events.contains(told), "{}: {told}", instance.name);
        }
        if !tshark {
            continue;
        }
        let file = lab.write("capture.pcap", &capture);
        let read = |filter: &str| tshark_reads(&file, filter);
        // Warnings and errors of the dissectors, broken sums among them.
        assert_eq!(
            read("_ws.expert.severity >= 0x00600000 or _ws.malformed"),
            "",
            "{}",
            instance.name
        );
        assert_eq!(read("http.request").lines().count(), 6, "{}", instance.name);
        assert!(read("dns.flags.rcode == 3").contains("gone.example"));
    }
}

const ASKING: &str = "ip addr; ip -6 route; ip route; ip route get 8.8.8.8; ip neigh
route -n | tail -n +2
ifconfig eth0 | grep -o 'inet addr.*'
arp -n; cat /sys/class/net/eth0/address
nc -l -p 99 & sleep 1; netstat -tln | tail -n +3; kill $!
ping -c 2 198.18.0.7 | grep -c 'bytes from 198.18.0.7: seq='
ping -c 1 c2.example > /dev/null && echo alive
ping -c 1 127.0.0.1 > /dev/null && echo itself
wget -q -O - 'http://[2001:db8::9]/' | grep -o '<p>.*</p>'
nslookup -type=aaaa six.example | grep -c 'Address:.*2001:db8:'
ip link set eth0 down 2> /dev/null || echo not set
";

const ANSWERED: &str = "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue qlen 1000
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 scope host lo
    inet6 ::1/128 scope host
2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq_codel qlen 1000
    link/ether 00:1b:21:3a:5c:0f brd ff:ff:ff:ff:ff:ff
    inet 192.0.2.15/24 brd 192.0.2.255 scope global eth0
    inet6 fdb2:2f0a:61c4:1::15/64 scope global
    inet6 fe80::21b:21ff:fe3a:5c0f/64 scope link
fdb2:2f0a:61c4:1::/64 dev eth0  metric 256
fe80::/64 dev eth0  metric 256
default via fe80::20d:b9ff:fe41:208c dev eth0  metric 1024
default via 192.0.2.1 dev eth0
192.0.2.0/24 dev eth0 scope link  src 192.0.2.15
8.8.8.8 via 192.0.2.1 dev eth0  src 192.0.2.15
192.0.2.1 dev eth0 lladdr 00:0d:b9:41:20:8c REACHABLE
Destination     Gateway         Genmask         Flags Metric Ref    Use Iface
0.0.0.0         192.0.2.1       0.0.0.0         UG    0      0        0 eth0
192.0.2.0       0.0.0.0         255.255.255.0   U     0      0        0 eth0
inet addr:192.0.2.15  Bcast:192.0.2.255  Mask:255.255.255.0
? (192.0.2.1) at 00:0d:b9:41:20:8c [ether]  on eth0
00:1b:21:3a:5c:0f
tcp        0      0 :::99                   :::*                    LISTEN
2
alive
itself
<p>It works.</p>
1
not set
";

#[test]
fn what_tells_of_the_network_agrees_and_echoes_are_in_the_capture() {
    let Some(all) = programs() else { return };
    let lab = Lab::new();
    manifest(&lab, &all, &json!({"network": "sink"}), ASKING);
    let run = lab.run("net.yaml", &[]);
    for (instance, (name, text)) in run.stage("run").zip(stdout(&run)) {
        // Some of these programs end lines with a space.
        let text: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(text, ANSWERED.lines().collect::<Vec<_>>(), "{name}");
        let events = String::from_utf8(run.output(instance, "events")).unwrap();
        assert!(
            events.contains(r#""op":"send","protocol":"raw","peer":"198.18.0.7:0""#),
            "{name}"
        );
        if Command::new("tshark").arg("--version").output().is_err() {
            eprintln!("SKIPPED in part: this host has no tshark, which reads the captures");
            continue;
        }
        let file = lab.write("capture.pcap", run.output(instance, "pcap"));
        assert_eq!(
            tshark_reads(&file, "_ws.expert.severity >= 0x00600000 or _ws.malformed"),
            "",
            "{name}"
        );
        assert_eq!(
            tshark_reads(&file, "ipv6 and http.request").lines().count(),
            1,
            "{name}"
        );
        assert_eq!(tshark_reads(&file, "icmp.type == 8").lines().count(), 3, "{name}");
        assert_eq!(
            tshark_reads(&file, "icmp.type == 0 and icmp.resp_to")
                .lines()
                .count(),
            3,
            "{name}"
        );
    }
}

#[test]
fn without_a_network_nothing_is_reached_but_the_guest_itself() {
    let Some(all) = programs() else { return };
    let lab = Lab::new();
    let script = "wget -q -O - http://198.18.0.1/ || echo unreachable
echo x | nc -u -w 1 192.0.2.53 53 || echo no datagram
busybox httpd -f -p 127.0.0.1:80 -h /site & sleep 1; wget -q -O - http://127.0.0.1/index.html; kill $!
";
    let with = json!({"network": "none", "files": {"/script": script, "/site/index.html": "its own\n"}});
    manifest(&lab, &all, &with, script);
    let run = lab.run("net.yaml", &[]);
    for (instance, (name, text)) in run.stage("run").zip(stdout(&run)) {
        assert!(
            text.starts_with("unreachable\n") && text.ends_with("its own\n"),
            "{name}: {text}"
        );
        assert_eq!(run.output(instance, "pcap"), b"", "{name}");
        let events = String::from_utf8(run.output(instance, "events")).unwrap();
        assert!(
            events.contains(r#""peer":"198.18.0.1:80","errno":"ENETUNREACH""#),
            "{name}"
        );
    }
}

#[test]
fn who_is_there_without_a_network_is_a_mistake() {
    let Some(all) = programs() else { return };
    let lab = Lab::new();
    manifest(
        &lab,
        &all,
        &json!({"internet": {"unknown": ["x.example"]}}),
        "true",
    );
    let (_, said) = lab.expect(2, ["plan", "net.yaml"]);
    assert!(
        said.contains("the guest has no network") && said.contains("network = \"sink\""),
        "{said}"
    );
}
