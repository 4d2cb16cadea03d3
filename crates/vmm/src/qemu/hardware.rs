//! Named versions of virtual hardware.
//!
//! QEMU's versioned machine types stay what they are over upgrades; `pc` alone does not. Its CPU models `host` and `max` mean what a
//! version of QEMU can do, and named models change as soon as TCG learns one of their features. So the models here are a fixed list of
//! features over the oldest base, all of which TCG has since 7.2: the levels of the x86-64 psABI with what guests gain most from.

use crate::config::Kind;

/// Passes on the processor of the host: fastest, but guests cannot move to another sort of host.
pub(super) const HOST: &str = "host";

/// Name and features. A published model never changes: add another.
const MODELS: [(&str, &str); 2] = [
    (
        "x86-64-v3",
        "qemu64-v1,+popcnt,+ssse3,+sse4.1,+sse4.2,+lahf-lm,+cx16,+avx,+avx2,+bmi1,+bmi2,+f16c,+fma,+abm,+movbe,+xsave,+xsaveopt,+aes,+pclmulqdq,\
         +rdrand,+rdseed,+erms,+fsgsbase,+smep,+smap,+adx,+rdtscp,+pdpe1gb,-svm",
    ),
    ("x86-64-v2", "qemu64-v1,+popcnt,+ssse3,+sse4.1,+sse4.2,+lahf-lm,+cx16,+aes,+pclmulqdq,+rdrand,+rdtscp,-svm"),
];

/// The models for an accelerator, that for new guests first.
pub(super) fn cpu_models(accelerator: Kind) -> Vec<String> {
    let host = (accelerator == Kind::Kvm).then_some(HOST);
    host.into_iter().chain(MODELS.map(|(name, _)| name)).map(str::to_owned).collect()
}

/// The QEMU name of a model; a name that is not ours is QEMU's own.
pub(super) fn cpu_argument(model: &str) -> String {
    let known = MODELS.into_iter().find(|(name, _)| *name == model);
    known.map_or(model, |(_, features)| features).to_owned()
}

/// The versioned types of the board that guests have, newest first, from the output of `-machine help`.
pub(super) fn machine_types(help: &str) -> Vec<String> {
    let names = help.lines().filter(|line| !line.contains("(deprecated)")).filter_map(|line| line.split(' ').next());
    let mut found: Vec<(Vec<u32>, &str)> = names
        .filter_map(|name| {
            let numbers = name.strip_prefix("pc-i440fx-")?.split('.').map(|part| part.parse().ok());
            Some((numbers.collect::<Option<Vec<u32>>>()?, name))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versioned_types_come_newest_first() {
        let help = "\
Supported machines are:
microvm              microvm (i386)
pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-10.0)
pc-i440fx-9.2        Standard PC (i440FX + PIIX, 1996)
pc-i440fx-10.0       Standard PC (i440FX + PIIX, 1996) (default)
pc-i440fx-7.0        Standard PC (i440FX + PIIX, 1996) (deprecated)
pc-q35-7.2           Standard PC (Q35 + ICH9, 2009)
none                 empty machine
";
        assert_eq!(machine_types(help), ["pc-i440fx-10.0", "pc-i440fx-9.2"]);
        assert_eq!(machine_types("nonsense"), Vec::<String>::new());
    }

    #[test]
    fn emulated_guests_never_get_what_a_version_of_qemu_can_do() {
        for model in cpu_models(Kind::Tcg) {
            assert!(cpu_argument(&model).starts_with("qemu64-v1,"), "{model}");
        }
        assert_eq!(cpu_models(Kind::Kvm)[0], "host");
        assert_eq!(cpu_argument("EPYC-v4"), "EPYC-v4");
    }
}
