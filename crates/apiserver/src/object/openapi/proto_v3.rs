//! The part of gnostic's `openapi.v3` messages that the documents use.

use super::proto::{Field, Kind, Message, field};
use serde_json::Value;

const fn message(fields: &'static [Field], extensions: u32) -> Message {
    Message { fields, extensions: if extensions == 0 { None } else { Some(extensions) }, entries: None }
}

/// A map: pairs at `number`, the value of each written by `value`.
const fn entries(number: u32, value: &'static Field, extensions: Option<u32>) -> Message {
    Message { fields: &[], extensions, entries: Some((number, value)) }
}

pub(super) static DOCUMENT: Message = message(
    &[
        field("openapi", 1, Kind::Text),
        field("info", 2, Kind::One(&INFO)),
        field("paths", 4, Kind::One(&PATHS)),
        field("components", 5, Kind::One(&COMPONENTS)),
    ],
    9,
);

static INFO: Message = message(&[field("title", 1, Kind::Text), field("version", 6, Kind::Text)], 7);
static PATHS: Message = entries(1, &PATH_VALUE, Some(2));
static PATH_VALUE: Field = field("", 2, Kind::One(&PATH_ITEM));
static COMPONENTS: Message = message(&[field("schemas", 1, Kind::One(&SCHEMAS))], 10);
static SCHEMAS: Message = entries(1, &SCHEMA_VALUE, None);
static SCHEMA_VALUE: Field = field("", 2, Kind::Choice(schema_or_reference));

static PATH_ITEM: Message = message(
    &[
        field("get", 4, Kind::One(&OPERATION)),
        field("put", 5, Kind::One(&OPERATION)),
        field("post", 6, Kind::One(&OPERATION)),
        field("delete", 7, Kind::One(&OPERATION)),
        field("patch", 10, Kind::One(&OPERATION)),
        field("parameters", 13, Kind::EachWrapped(&PARAMETER_ITEM)),
    ],
    14,
);
static PARAMETER_ITEM: Field = field("", 1, Kind::One(&PARAMETER));

static OPERATION: Message = message(
    &[
        field("tags", 1, Kind::Texts),
        field("description", 3, Kind::Text),
        field("operationId", 5, Kind::Text),
        field("parameters", 6, Kind::EachWrapped(&PARAMETER_ITEM)),
        field("requestBody", 7, Kind::Wrapped(&BODY_ITEM)),
        field("responses", 8, Kind::One(&RESPONSES)),
    ],
    13,
);
static PARAMETER: Message = message(
    &[
        field("name", 1, Kind::Text),
        field("in", 2, Kind::Text),
        field("description", 3, Kind::Text),
        field("required", 4, Kind::Bool),
        field("schema", 10, Kind::Choice(schema_or_reference)),
    ],
    14,
);
static BODY_ITEM: Field = field("", 1, Kind::One(&BODY));
static BODY: Message = message(&[field("content", 2, Kind::One(&MEDIA_TYPES)), field("required", 3, Kind::Bool)], 4);
static MEDIA_TYPES: Message = entries(1, &MEDIA_VALUE, None);
static MEDIA_VALUE: Field = field("", 2, Kind::One(&MEDIA_TYPE));
static MEDIA_TYPE: Message = message(&[field("schema", 1, Kind::Choice(schema_or_reference))], 5);
static RESPONSES: Message = entries(2, &RESPONSE_VALUE, Some(3));
static RESPONSE_VALUE: Field = field("", 2, Kind::Wrapped(&RESPONSE_ITEM));
static RESPONSE_ITEM: Field = field("", 1, Kind::One(&RESPONSE));
static RESPONSE: Message =
    message(&[field("description", 1, Kind::Text), field("content", 3, Kind::One(&MEDIA_TYPES))], 5);

static AS_SCHEMA: Field = field("", 1, Kind::One(&SCHEMA));
static AS_REFERENCE: Field = field("", 2, Kind::One(&REFERENCE));
static REFERENCE: Message = message(&[field("$ref", 1, Kind::Text)], 0);

fn schema_or_reference(value: &Value) -> &'static Field {
    if value.get("$ref").is_some() { &AS_REFERENCE } else { &AS_SCHEMA }
}

static SCHEMA: Message = message(
    &[
        field("nullable", 1, Kind::Bool),
        field("title", 9, Kind::Text),
        field("multipleOf", 10, Kind::Double),
        field("maximum", 11, Kind::Double),
        field("exclusiveMaximum", 12, Kind::Bool),
        field("minimum", 13, Kind::Double),
        field("exclusiveMinimum", 14, Kind::Bool),
        field("maxLength", 15, Kind::Int),
        field("minLength", 16, Kind::Int),
        field("pattern", 17, Kind::Text),
        field("maxItems", 18, Kind::Int),
        field("minItems", 19, Kind::Int),
        field("uniqueItems", 20, Kind::Bool),
        field("maxProperties", 21, Kind::Int),
        field("minProperties", 22, Kind::Int),
        field("required", 23, Kind::Texts),
        field("enum", 24, Kind::Anys),
        field("type", 25, Kind::Text),
        field("allOf", 26, Kind::EachChoice(schema_or_reference)),
        field("oneOf", 27, Kind::EachChoice(schema_or_reference)),
        field("anyOf", 28, Kind::EachChoice(schema_or_reference)),
        field("not", 29, Kind::One(&SCHEMA)),
        field("items", 30, Kind::Wrapped(&ITEM)),
        field("properties", 31, Kind::One(&SCHEMAS)),
        field("additionalProperties", 32, Kind::Choice(additional)),
        field("default", 33, Kind::Choice(default_type)),
        field("description", 34, Kind::Text),
        field("format", 35, Kind::Text),
        field("example", 7, Kind::Any),
    ],
    36,
);
static ITEM: Field = field("", 1, Kind::Choice(schema_or_reference));
static ADDITIONAL_SCHEMA: Field = field("", 1, Kind::Choice(schema_or_reference));
static ADDITIONAL_BOOL: Field = field("", 2, Kind::Bool);

fn additional(value: &Value) -> &'static Field {
    if value.is_boolean() { &ADDITIONAL_BOOL } else { &ADDITIONAL_SCHEMA }
}

static DEFAULT_NUMBER: Field = field("", 1, Kind::Double);
static DEFAULT_BOOL: Field = field("", 2, Kind::Bool);
static DEFAULT_TEXT: Field = field("", 3, Kind::Text);
static DEFAULT_NONE: Field = field("", 3, Kind::Nothing);

/// The format supports scalar defaults only; others are not written.
fn default_type(value: &Value) -> &'static Field {
    match value {
        Value::Number(_) => &DEFAULT_NUMBER,
        Value::Bool(_) => &DEFAULT_BOOL,
        Value::String(_) => &DEFAULT_TEXT,
        _ => &DEFAULT_NONE,
    }
}
