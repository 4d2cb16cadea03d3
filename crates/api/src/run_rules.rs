//! The rules of Service and Revision that their schemas cannot say.

use crate::image_ref::ImageRef;
use crate::names::NameRule;
use crate::rules::{Function, Immutable, KindRules, Problem};
use crate::run::{Container, Revision, Service};

/// The longest name of a service. A revision is called `<service>-00001` and a replica `<service>-00001-0`: the first is the value of a
/// label, which has 63 characters at most, the second a host name, which has 64. Too low refuses names for nothing; too high and a
/// service stops at the number of revisions that has more digits. Cloud Run's limit is 49.
const LONGEST_SERVICE: usize = 50;

/// The most bytes of one argument or of one variable with its name: Linux' MAX_ARG_STRLEN without the closing NUL.
const LONGEST_TEXT_BYTES: usize = 128 * 1024 - 1;
/// The most bytes of all of them: half of what Linux allows a program that has the usual stack of 8 MB, which leaves as much for the image's.
const ALL_TEXTS_BYTES: usize = 1024 * 1024;

impl KindRules for Service {
    const NAMES: NameRule = NameRule::label(
        LONGEST_SERVICE,
        "revisions and replicas are called <name>-00001 and <name>-00001-0, and these become labels and host names",
    );
    const PROBLEMS: Function<Self, Problem> = Some(|service| {
        let containers = service.spec.template.spec.containers.iter().enumerate();
        let problems = containers.map(|(index, container)| {
            problems_of_container(container, &format!("spec.template.spec.containers[{index}]"))
        });
        problems.flatten().collect()
    });
}

impl KindRules for Revision {
    const NAMES: NameRule = NameRule::ANY;
    const IMMUTABLE: &'static [Immutable] =
        &[Immutable { path: "", message: "a revision cannot be changed: change its service" }];
    const PROBLEMS: Function<Self, Problem> =
        Some(|revision| problems_of_container(&revision.spec.container, "spec.container"));
}

/// The image's reference has its form, and the kernel takes the texts that the program is started with.
fn problems_of_container(container: &Container, at: &str) -> Vec<Problem> {
    // Every field is named, so that a new one does not compile until its check has been decided.
    let Container { name: _, image, command, args, env, ports: _ } = container;
    let mut problems = Vec::new();
    if let Err(error) = ImageRef::parse(image) {
        problems.push(Problem::new(format!("{at}.image"), error.to_string()));
    }
    let mut all = 0;
    let mut check = |field: String, text: &str, bytes: usize| {
        all += bytes + 1;
        if text.contains('\0') {
            problems.push(Problem::new(field, "expected a text without NUL: programs cannot be given one"));
        } else if bytes > LONGEST_TEXT_BYTES {
            let limit =
                format!("expected at most {LONGEST_TEXT_BYTES} bytes, found {bytes}: Linux takes no longer ones");
            problems.push(Problem::new(field, limit));
        }
    };
    for (list, texts) in [("command", command), ("args", args)] {
        for (index, text) in texts.iter().enumerate() {
            check(format!("{at}.{list}[{index}]"), text, text.len());
        }
    }
    for (index, variable) in env.iter().enumerate() {
        let bytes = variable.name.len() + 1 + variable.value.len();
        check(format!("{at}.env[{index}].value"), &variable.value, bytes);
    }
    if all > ALL_TEXTS_BYTES {
        let sentence =
            format!("expected at most {ALL_TEXTS_BYTES} bytes of command, args and env together, found {all}");
        problems.push(Problem::new(at, sentence));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::EnvVar;

    fn container() -> Container {
        Container { image: "registry.evroc.localhost/demo/hello:v1".into(), ..Container::default() }
    }

    fn fields(container: &Container) -> Vec<String> {
        problems_of_container(container, "c").into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn programs_that_the_kernel_rejects_are_refused() {
        assert_eq!(fields(&container()), [""; 0]);
        let variable = |value: String| EnvVar { name: "A".into(), value };
        for (change, field) in [
            (Container { image: "https://registry.evroc.localhost/demo/hello".into(), ..container() }, "c.image"),
            (Container { args: vec!["a".into(), "b\0".into()], ..container() }, "c.args[1]"),
            (Container { command: vec!["a".repeat(131_072)], ..container() }, "c.command[0]"),
            (Container { env: vec![variable("a\0".into())], ..container() }, "c.env[0].value"),
            (Container { env: vec![variable("a".repeat(131_070))], ..container() }, "c.env[0].value"),
            (Container { env: vec![variable("a".repeat(120_000)); 9], ..container() }, "c"),
        ] {
            assert_eq!(fields(&change), [field], "{field}");
        }
        let longest =
            Container { args: vec!["a".repeat(131_071)], env: vec![variable("a".repeat(131_069))], ..container() };
        assert_eq!(fields(&longest), [""; 0]);
    }

    #[test]
    fn names_leave_room_for_revisions_and_replicas() {
        let longest = "a".repeat(LONGEST_SERVICE);
        assert_eq!(Service::NAMES.problem(&longest), None);
        assert!(format!("{longest}-9999999").len() <= 63 && format!("{longest}-9999999-9999").len() <= 64);
        let problem = Service::NAMES.problem(&format!("{longest}a")).expect("a problem");
        assert!(problem.contains("at most 50") && problem.contains("-00001"), "{problem}");
    }
}
