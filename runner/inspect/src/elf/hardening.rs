//! How a program is linked, and which protections it has.

use goblin::elf::dynamic as dt;
use hotcell_schema::elf::{Hardening, Linkage, Relro};

use super::dynamic::Dynamic;
use super::symbols::Known;
use super::tables::Tables;

/// How a program is linked; none for what is no program (object files, core dumps).
pub(crate) fn linkage(tables: &Tables<'_>, dynamic: &Dynamic) -> Option<Linkage> {
    let interpreter = tables.segment_of_type(3).is_some();
    let needs = interpreter || !dynamic.libraries.is_empty();
    match tables.header.e_type {
        2 if needs => Some(Linkage::Dynamic),
        2 => Some(Linkage::Static),
        3 if needs => Some(Linkage::Dynamic),
        // A shared object that needs nothing: a program says so by flag, or has an entry and no library name.
        3 if dynamic.says_pie() || (tables.header.e_entry != 0 && dynamic.soname.is_none()) => {
            Some(Linkage::StaticPie)
        }
        3 => Some(Linkage::Dynamic),
        _ => None,
    }
}

/// The protections of a program; none for what is no program.
pub(crate) fn hardening(tables: &Tables<'_>, dynamic: &Dynamic, known: &Known) -> Option<Hardening> {
    let linkage = linkage(tables, dynamic)?;
    // PT_GNU_STACK; without it each architecture's kernel decides.
    let nx = tables
        .segment_of_type(0x6474_e551)
        .map(|segment| segment.p_flags & 1 == 0);
    let relro = match tables.segment_of_type(0x6474_e552) {
        Some(_) if dynamic.binds_now() => Relro::Full,
        Some(_) => Relro::Partial,
        None => Relro::None,
    };
    let symbols = known.symbols.total > 0;
    Some(Hardening {
        nx,
        pie: is_pie(tables, dynamic, linkage),
        relro,
        canary: symbols.then_some(known.canary),
        fortify: symbols.then_some(!known.fortified.is_empty()),
        fortified: known.fortified.iter().cloned().collect(),
        rpath: dynamic.rpath.clone(),
        runpath: dynamic.runpath.clone(),
        stripped: tables.section_of_type(2).is_none(),
    })
}

/// A position-independent program, not a library: by flag, by its place for the debugger, or static-pie.
fn is_pie(tables: &Tables<'_>, dynamic: &Dynamic, linkage: Linkage) -> bool {
    tables.header.e_type == 3
        && (dynamic.says_pie()
            || linkage == Linkage::StaticPie
            || (tables.segment_of_type(3).is_some() && dynamic.value(dt::DT_DEBUG).is_some())
            // MIPS has tags of its own for the debugger's place.
            || (tables.segment_of_type(3).is_some()
                && (dynamic.value(0x7000_0016).is_some() || dynamic.value(0x7000_0035).is_some())))
}
