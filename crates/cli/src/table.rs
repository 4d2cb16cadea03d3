//! Tables as kubectl prints them: columns three spaces apart, no lines.

use serde_json::Value;

/// Prints a `meta.k8s.io/v1` Table; columns with a priority only when `wide`.
pub fn print(table: &Value, wide: bool) {
    let columns = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
    let shown: Vec<usize> =
        (0..columns.len()).filter(|i| wide || columns[*i]["priority"].as_i64().unwrap_or(0) == 0).collect();
    let mut rows =
        vec![shown.iter().map(|i| columns[*i]["name"].as_str().unwrap_or("").to_uppercase()).collect::<Vec<_>>()];
    for row in table["rows"].as_array().into_iter().flatten() {
        rows.push(shown.iter().map(|i| cell(&row["cells"][*i])).collect());
    }
    if rows.len() == 1 {
        eprintln!("There are none.");
        return;
    }
    let widths: Vec<usize> =
        (0..shown.len()).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}")).collect();
        println!("{}", line.join("   ").trim_end());
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
