//! The part of gnostic's `openapi.v2` messages that the documents use.

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
        field("swagger", 1, Kind::Text),
        field("info", 2, Kind::One(&INFO)),
        field("paths", 8, Kind::One(&PATHS)),
        field("definitions", 9, Kind::One(&SCHEMAS)),
        field("security", 12, Kind::Many(&SECURITY)),
        field("securityDefinitions", 13, Kind::One(&SECURITY_DEFINITIONS)),
    ],
    16,
);

static INFO: Message = message(&[field("title", 1, Kind::Text), field("version", 2, Kind::Text)], 7);
static PATHS: Message = entries(2, &PATH_VALUE, Some(1));
static PATH_VALUE: Field = field("", 2, Kind::One(&PATH_ITEM));
static SCHEMAS: Message = entries(1, &SCHEMA_VALUE, None);
static SCHEMA_VALUE: Field = field("", 2, Kind::One(&SCHEMA));

static SECURITY: Message = entries(1, &SECURITY_SCOPES, None);
static SECURITY_SCOPES: Field = field("", 2, Kind::Wrapped(&TYPE));
// The documents use API keys only.
static SECURITY_DEFINITIONS: Message = entries(1, &SECURITY_ITEM, None);
static SECURITY_ITEM: Field = field("", 2, Kind::Wrapped(&SECURITY_KEY));
static SECURITY_KEY: Field = field("", 2, Kind::One(&API_KEY));
static API_KEY: Message = message(
    &[
        field("type", 1, Kind::Text),
        field("name", 2, Kind::Text),
        field("in", 3, Kind::Text),
        field("description", 4, Kind::Text),
    ],
    0,
);

static PATH_ITEM: Message = message(
    &[
        field("get", 2, Kind::One(&OPERATION)),
        field("put", 3, Kind::One(&OPERATION)),
        field("post", 4, Kind::One(&OPERATION)),
        field("delete", 5, Kind::One(&OPERATION)),
        field("patch", 8, Kind::One(&OPERATION)),
        field("parameters", 9, Kind::EachWrapped(&PARAMETER)),
    ],
    10,
);

static OPERATION: Message = message(
    &[
        field("tags", 1, Kind::Texts),
        field("description", 3, Kind::Text),
        field("operationId", 5, Kind::Text),
        field("produces", 6, Kind::Texts),
        field("consumes", 7, Kind::Texts),
        field("parameters", 8, Kind::EachWrapped(&PARAMETER)),
        field("responses", 9, Kind::One(&RESPONSES)),
        field("schemes", 10, Kind::Texts),
    ],
    13,
);

static PARAMETER: Field = field("", 1, Kind::Choice(body_or_not));
static BODY: Field = field("", 1, Kind::One(&BODY_PARAMETER));
static NOT_BODY: Field = field("", 2, Kind::Choice(query_or_path));
static QUERY: Field = field("", 3, Kind::One(&QUERY_PARAMETER));
static PATH: Field = field("", 4, Kind::One(&PATH_PARAMETER));

fn body_or_not(parameter: &Value) -> &'static Field {
    if parameter["in"] == "body" { &BODY } else { &NOT_BODY }
}

fn query_or_path(parameter: &Value) -> &'static Field {
    if parameter["in"] == "path" { &PATH } else { &QUERY }
}

static BODY_PARAMETER: Message = message(
    &[
        field("description", 1, Kind::Text),
        field("name", 2, Kind::Text),
        field("in", 3, Kind::Text),
        field("required", 4, Kind::Bool),
        field("schema", 5, Kind::One(&SCHEMA)),
    ],
    6,
);
static QUERY_PARAMETER: Message = message(
    &[
        field("required", 1, Kind::Bool),
        field("in", 2, Kind::Text),
        field("description", 3, Kind::Text),
        field("name", 4, Kind::Text),
        field("type", 6, Kind::Text),
        field("uniqueItems", 20, Kind::Bool),
    ],
    23,
);
static PATH_PARAMETER: Message = message(
    &[
        field("required", 1, Kind::Bool),
        field("in", 2, Kind::Text),
        field("description", 3, Kind::Text),
        field("name", 4, Kind::Text),
        field("type", 5, Kind::Text),
        field("uniqueItems", 19, Kind::Bool),
    ],
    22,
);

static RESPONSES: Message = entries(1, &RESPONSE_VALUE, Some(2));
static RESPONSE_VALUE: Field = field("", 2, Kind::Wrapped(&RESPONSE_ITEM));
static RESPONSE_ITEM: Field = field("", 1, Kind::One(&RESPONSE));
static RESPONSE: Message =
    message(&[field("description", 1, Kind::Text), field("schema", 2, Kind::Wrapped(&RESPONSE_SCHEMA))], 5);
static RESPONSE_SCHEMA: Field = field("", 1, Kind::One(&SCHEMA));

static SCHEMA: Message = message(
    &[
        field("$ref", 1, Kind::Text),
        field("format", 2, Kind::Text),
        field("title", 3, Kind::Text),
        field("description", 4, Kind::Text),
        field("default", 5, Kind::Any),
        field("multipleOf", 6, Kind::Double),
        field("maximum", 7, Kind::Double),
        field("exclusiveMaximum", 8, Kind::Bool),
        field("minimum", 9, Kind::Double),
        field("exclusiveMinimum", 10, Kind::Bool),
        field("maxLength", 11, Kind::Int),
        field("minLength", 12, Kind::Int),
        field("pattern", 13, Kind::Text),
        field("maxItems", 14, Kind::Int),
        field("minItems", 15, Kind::Int),
        field("uniqueItems", 16, Kind::Bool),
        field("maxProperties", 17, Kind::Int),
        field("minProperties", 18, Kind::Int),
        field("required", 19, Kind::Texts),
        field("enum", 20, Kind::Anys),
        field("additionalProperties", 21, Kind::Choice(additional)),
        field("type", 22, Kind::Wrapped(&TYPE)),
        field("items", 23, Kind::Wrapped(&ITEM)),
        field("allOf", 24, Kind::Many(&SCHEMA)),
        field("properties", 25, Kind::One(&SCHEMAS)),
        field("example", 30, Kind::Any),
    ],
    31,
);
static TYPE: Field = field("", 1, Kind::Texts);
static ITEM: Field = field("", 1, Kind::One(&SCHEMA));
static ADDITIONAL_SCHEMA: Field = field("", 1, Kind::One(&SCHEMA));
static ADDITIONAL_BOOL: Field = field("", 2, Kind::Bool);

fn additional(value: &Value) -> &'static Field {
    if value.is_boolean() { &ADDITIONAL_BOOL } else { &ADDITIONAL_SCHEMA }
}
