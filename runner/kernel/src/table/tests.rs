use super::*;

/// A family, the list's module, and its calls: name and number.
type Known = (AbiFamily, &'static str, Vec<(&'static str, u64)>);

/// Every number that the crate `syscalls` knows.
fn known() -> Vec<Known> {
    macro_rules! list {
        ($family:expr, $module:ident) => {
            (
                $family,
                stringify!($module),
                // Its iterator leaves out the last one.
                syscalls::$module::Sysno::iter()
                    .chain([syscalls::$module::Sysno::last()])
                    .map(|call| (call.name().trim_start_matches("r#"), call.id() as u64))
                    .collect(),
            )
        };
    }
    vec![
        list!(AbiFamily::X86_64, x86_64),
        list!(AbiFamily::I386, x86),
        list!(AbiFamily::ArmEabi, arm),
        list!(AbiFamily::Generic64, aarch64),
        list!(AbiFamily::Generic64, riscv64),
        list!(AbiFamily::MipsO32, mips),
        list!(AbiFamily::MipsN64, mips64),
        list!(AbiFamily::Ppc32, powerpc),
        list!(AbiFamily::Ppc64, powerpc64),
        list!(AbiFamily::S390x, s390x),
    ]
}

/// Numbers that Linux keeps free have made-up names in that list.
fn is_placeholder(name: &str) -> bool {
    name.starts_with("unused") || name.starts_with("reserved")
}

#[test]
fn every_known_number_has_its_name() {
    for (family, module, calls) in known() {
        assert!(calls.len() > 300, "{module}: {}", calls.len());
        for (name, number) in calls {
            if is_placeholder(name) {
                continue;
            }
            // That list calls aarch64's newfstatat by its libc name.
            let name = if module == "aarch64" && name == "fstatat" {
                "newfstatat"
            } else {
                name
            };
            let row = table().find(family, number);
            assert_eq!(row.map(|row| row.name), Some(name), "{module} {number}");
        }
    }
}

#[test]
fn no_number_is_made_up() {
    const ARM_PRIVATE: u64 = 0xf_0000;
    let known = known();
    for row in table().rows() {
        for family in FAMILIES {
            let Some(number) = row.number(family).filter(|number| *number < ARM_PRIVATE) else {
                continue;
            };
            let found = known
                .iter()
                .filter(|(one, ..)| *one == family)
                .any(|(_, _, calls)| calls.iter().any(|(_, id)| *id == number));
            assert!(found, "{} {family:?} {number}", row.name);
        }
    }
}

#[test]
fn names_and_numbers_stand_once() {
    let rows = table().rows();
    assert!(rows.len() > 350);
    for pair in rows.windows(2) {
        let [a, b] = pair else { continue };
        assert!(a.name < b.name, "{} twice", a.name);
    }
    for family in FAMILIES {
        let mut numbers: Vec<_> = rows.iter().filter_map(|row| row.number(family)).collect();
        let all = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all, "{family:?}");
    }
}

#[test]
fn every_shape_can_be_read() {
    for row in table().rows() {
        let params = shape::parse(row.shape);
        assert_eq!(params.as_ref(), Some(&row.params), "{}: {}", row.name, row.shape);
        assert!(row.params.len() <= 6, "{}", row.name);
        let handled = row.handler.is_some();
        match row.level {
            Level::Full | Level::Partial(_) => assert!(handled, "{} has no handler", row.name),
            Level::Refused(..) | Level::Missing => assert!(!handled, "{} has a handler", row.name),
        }
        if let Level::Partial(note) | Level::Refused(_, note) = row.level {
            assert!(!note.is_empty(), "{} does not say what is missing", row.name);
        }
    }
}
