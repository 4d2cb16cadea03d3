//! The kinds of the evroc cloud: types, schema, defaults, validation, printer columns.
