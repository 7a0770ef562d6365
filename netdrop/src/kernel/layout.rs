//! Offsets of the kernel struct members that the kernel side reads, from the running kernel's types.

use std::{collections::HashMap, path::Path};

use netdrop_common::{
    fields::{ABSENT, NEIGH_QUEUE_ENUMERATOR, NEIGH_QUEUE_INDEX, PKT_TYPE_BYTE, PKT_TYPE_SHIFT},
    witness::MIB_INDICES,
};

use super::btf::{BtfError, KernelBtf, Structure};

/// One row of `netdrop_common::kernel_fields`.
struct Row {
    global: &'static str,
    ty: &'static str,
    member: &'static str,
    required: bool,
}

macro_rules! need {
    (required) => {
        true
    };
    (optional) => {
        false
    };
}

macro_rules! rows {
    ($($global:ident: $ty:literal $member:literal, $need:ident;)*) => {
        const ROWS: &[Row] = &[$(Row {
            global: stringify!($global),
            ty: $ty,
            member: $member,
            required: need!($need),
        }),*];
    };
}

netdrop_common::kernel_fields!(rows);

/// Values of the offset globals.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Global name and byte offset, or the index under [`NEIGH_QUEUE_INDEX`] and [`MIB_INDICES`]; `ABSENT` where the kernel has none.
    pub offsets: Vec<(&'static str, u16)>,
    /// Shift of `sk_buff.pkt_type` in its byte, under [`PKT_TYPE_SHIFT`].
    pub packet_type_shift: u8,
    /// Members this kernel lacks and netdrop can do without.
    pub missing: Vec<String>,
}

impl Layout {
    /// Name of the one global that is no 16-bit number.
    pub const PACKET_TYPE_SHIFT: &str = PKT_TYPE_SHIFT;

    /// Whether this kernel shows where the member under this global's name is.
    #[must_use]
    pub fn has(&self, global: &str) -> bool {
        self.offsets.iter().any(|(name, offset)| *name == global && *offset != ABSENT)
    }

    /// Resolves all rows.
    ///
    /// # Errors
    ///
    /// When a required member is missing.
    pub fn resolve(btf: &KernelBtf) -> Result<Self, BtfError> {
        let mut layout = Self { offsets: Vec::new(), packet_type_shift: 0, missing: Vec::new() };
        let mut modules = HashMap::new();
        // Rows of one struct stand together: each struct is looked up once, and each module read once.
        for rows in ROWS.chunk_by(|a, b| a.ty == b.ty) {
            match rows[0].ty.split_once(':') {
                None => layout.add_all(btf.structure(rows[0].ty), rows)?,
                // Part of the kernel image, where there are no such types: or not loaded, or before 5.11.
                Some((module, ty)) => {
                    let open = || btf.open_module(&Path::new(KernelBtf::DIRECTORY).join(module)).ok();
                    let types = modules.entry(module).or_insert_with(open).as_ref().unwrap_or(btf);
                    layout.add_all(types.structure(ty), rows)?;
                }
            }
        }
        let packet_type = btf.structure("sk_buff")?.member("pkt_type")?;
        layout.offsets.push((PKT_TYPE_BYTE, offset(packet_type.byte())?));
        layout.packet_type_shift = (packet_type.bit % 8) as u8;
        let indices = [(NEIGH_QUEUE_INDEX, NEIGH_QUEUE_ENUMERATOR)].into_iter().chain(MIB_INDICES);
        let (globals, names): (Vec<_>, Vec<_>) = indices.unzip();
        for (global, index) in globals.into_iter().zip(btf.anonymous_enumerators(&names)?) {
            layout.offsets.push((global, index.map_or(Ok(ABSENT), offset)?));
        }
        Ok(layout)
    }

    /// Adds the rows of one struct.
    fn add_all(&mut self, structure: Result<Structure<'_>, BtfError>, rows: &[Row]) -> Result<(), BtfError> {
        match structure {
            Ok(structure) => rows.iter().try_for_each(|row| self.add(&structure, row)),
            Err(error) if rows.iter().any(|row| row.required) => Err(error),
            Err(error) => {
                self.missing.push(error.to_string());
                self.offsets.extend(rows.iter().map(|row| (row.global, ABSENT)));
                Ok(())
            }
        }
    }

    fn add(&mut self, structure: &Structure<'_>, row: &Row) -> Result<(), BtfError> {
        let value = if row.member.is_empty() {
            offset(structure.size())?
        } else {
            let mut names = row.member.split('|');
            let first = structure.member(names.next().unwrap_or_default());
            match names.fold(first, |found, name| found.or_else(|_| structure.member(name))) {
                Ok(member) => offset(member.byte())?,
                Err(error) if row.required => return Err(error),
                Err(error) => {
                    self.missing.push(error.to_string());
                    ABSENT
                }
            }
        };
        self.offsets.push((row.global, value));
        Ok(())
    }
}

fn offset(bytes: u32) -> Result<u16, BtfError> {
    u16::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes != ABSENT)
        .ok_or_else(|| BtfError::Ambiguous(format!("offset {bytes}")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn rows_of_one_struct_stand_together() {
        let mut seen = Vec::new();
        for rows in ROWS.chunk_by(|a, b| a.ty == b.ty) {
            assert!(!seen.contains(&rows[0].ty), "{} stands in two places", rows[0].ty);
            seen.push(rows[0].ty);
        }
    }

    #[test]
    fn resolves_on_this_kernel() {
        let path = Path::new(KernelBtf::VMLINUX);
        if !path.exists() {
            println!("SKIP: this kernel has no {}", path.display());
            return;
        }
        let layout = Layout::resolve(&KernelBtf::open(path).unwrap()).unwrap();
        assert_eq!(layout.offsets.len(), ROWS.len() + 2 + MIB_INDICES.len());
        assert!(layout.packet_type_shift < 8);
    }
}
