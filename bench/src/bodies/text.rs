//! Texts of which there is too much.

/// `n` parts, one after the other, with something between them.
pub fn joined(n: usize, between: &str, part: impl Fn(usize) -> String) -> String {
    (0..n).map(part).collect::<Vec<_>>().join(between)
}

/// `{"a0":1,…}`: each key as often as it says.
pub fn map(n: usize, times: usize, value: &str) -> String {
    format!("{{{}}}", joined(n, ",", |i| format!("\"a{}\":{value}", i / times)))
}

/// `[…]`.
pub fn list(n: usize, item: impl Fn(usize) -> String) -> String {
    format!("[{}]", joined(n, ",", item))
}

/// A widget with this `spec` and more of `metadata`.
pub fn widget(name: &str, metadata: &str, spec: &str) -> String {
    format!(
        "{{\"apiVersion\":\"test.example/v1\",\"kind\":\"Widget\",\"metadata\":{{\"name\":\"{name}\"{metadata}}},\"spec\":{spec}}}"
    )
}

/// A field of protobuf with a length.
pub fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = varint(number << 3 | 2);
    out.extend(varint(bytes.len() as u64));
    out.extend_from_slice(bytes);
    out
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// Kubernetes' protobuf envelope of an object.
pub fn protobuf(version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &meta), field(2, object)].concat()
}
