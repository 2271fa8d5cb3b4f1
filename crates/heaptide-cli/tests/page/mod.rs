//! What is in a page.

use std::process::Command;

/// The head of a page, and the rest of it that is not compressed.
pub(crate) fn page_head(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once("id=\"data\">").expect("the page has data");
    let (text, _) = rest.split_once("</script>").expect("they end");
    let python = "import base64, json, struct, sys, zlib\n\
        data = zlib.decompress(base64.b64decode(sys.stdin.read()))\n\
        print(data[4:4 + struct.unpack('<I', data[:4])[0]].decode())";
    let mut child = Command::new("python3")
        .args(["-c", python])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 starts");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().expect("python3 ends");
    serde_json::from_slice(&output.stdout).expect("the head is JSON")
}
