//! The running kernel's type information (`/sys/kernel/btf`): struct members, enums, prototypes.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use btf_rs::{Backend, Btf, BtfType, Type};

/// Why type information could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel has none, or it cannot be read.
    #[error("cannot read the kernel's type information {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("cannot parse the kernel's type information {}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        message: String,
    },
    /// The kernel has no such type.
    #[error("this kernel has no type `{0}`")]
    NoType(String),
    /// The struct has no such member.
    #[error("this kernel has no `{ty}.{member}`")]
    NoMember {
        /// The struct.
        ty: String,
        /// Path of the member.
        member: String,
    },
    /// Several types have the name and they differ.
    #[error("this kernel has several types `{0}` that differ")]
    Ambiguous(String),
}

/// Where a struct member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// First bit, from the start of the struct.
    pub bit: u32,
    /// Width of a bit field, nothing for an ordinary member.
    pub bits: Option<u32>,
}

impl Member {
    /// First byte, from the start of the struct.
    #[must_use]
    pub fn byte(self) -> u32 {
        self.bit / 8
    }
}

/// Names and values.
#[cfg(test)]
pub(crate) type Enumerators = Vec<(String, u32)>;

/// Type information of the kernel image or of one module.
pub struct KernelBtf {
    btf: Btf,
    path: PathBuf,
}

impl KernelBtf {
    /// Where the kernel shows its own type information (CONFIG_DEBUG_INFO_BTF).
    pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

    /// Where it shows that of each module.
    pub const DIRECTORY: &str = "/sys/kernel/btf";

    /// Opens the kernel image's type information.
    ///
    /// # Errors
    ///
    /// When the file is missing, unreadable or malformed.
    pub fn open(path: &Path) -> Result<Self, BtfError> {
        // Parsing by mmap takes 2 ms instead of 100, but sysfs lets itself be mapped only from 6.16 on: a
        // copy in memory can be mapped everywhere.
        let copy = copy_to_memory(path).map_err(|source| BtfError::Read { path: path.to_owned(), source })?;
        let mapped = PathBuf::from(format!("/proc/self/fd/{}", copy.as_raw_fd()));
        let btf = Btf::from_file_with_backend(&mapped, Backend::Mmap)
            .map_err(|error| BtfError::Parse { path: path.to_owned(), message: error.to_string() })?;
        Ok(Self { btf, path: path.to_owned() })
    }

    /// Opens a module's type information (since 5.11), which builds on this one.
    ///
    /// # Errors
    ///
    /// When the file is missing, unreadable or malformed.
    pub fn open_module(&self, path: &Path) -> Result<Self, BtfError> {
        let bytes = std::fs::read(path).map_err(|source| BtfError::Read { path: path.to_owned(), source })?;
        let btf = Btf::from_split_bytes(&bytes, &self.btf)
            .map_err(|error| BtfError::Parse { path: path.to_owned(), message: error.to_string() })?;
        Ok(Self { btf, path: path.to_owned() })
    }

    fn parse_error(&self, error: &btf_rs::Error) -> BtfError {
        BtfError::Parse { path: self.path.clone(), message: error.to_string() }
    }

    /// All types with this name; none is an empty list.
    fn types(&self, name: &str) -> Result<Vec<Type>, BtfError> {
        self.btf.resolve_types_by_name(name).map_err(|error| self.parse_error(&error))
    }

    /// The one struct with this name.
    ///
    /// # Errors
    ///
    /// When there is none, or several that differ in size.
    pub fn structure(&self, name: &str) -> Result<Structure<'_>, BtfError> {
        let mut found: Option<btf_rs::Struct> = None;
        for ty in self.types(name)? {
            let Type::Struct(ty) = ty else { continue };
            match &found {
                Some(first) if first.size() != ty.size() => return Err(BtfError::Ambiguous(name.to_owned())),
                Some(_) => {}
                None => found = Some(ty),
            }
        }
        let ty = found.ok_or_else(|| BtfError::NoType(name.to_owned()))?;
        Ok(Structure { btf: self, name: name.to_owned(), ty })
    }

    /// Names and values of an enum; nothing when this kernel has none of that name.
    ///
    /// # Errors
    ///
    /// When the type information is malformed.
    pub fn enumerators(&self, name: &str) -> Result<Option<Vec<(String, u32)>>, BtfError> {
        for ty in self.types(name)? {
            let Type::Enum(ty) = ty else { continue };
            let mut values = Vec::with_capacity(ty.members.len());
            for member in &ty.members {
                let name = self.btf.resolve_name(member).map_err(|error| self.parse_error(&error))?;
                values.push((name, member.val()));
            }
            return Ok(Some(values));
        }
        Ok(None)
    }

    /// Every enum: its name, and names and values of its enumerators.
    #[cfg(test)]
    pub(crate) fn enums(&self) -> Result<Vec<(String, Enumerators)>, BtfError> {
        let mut enums = Vec::new();
        let sections = [Some(self.btf.base()), self.btf.split()];
        let ids = sections.into_iter().flatten().map(btf_rs::BtfSection::type_id_range);
        for id in ids.flat_map(|(first, last)| first..=last) {
            let Ok(Type::Enum(ty)) = self.btf.resolve_type_by_id(id) else { continue };
            let resolve =
                |named: &dyn BtfType| self.btf.resolve_name(named).map_err(|e| self.parse_error(&e));
            let name = resolve(&ty)?;
            let members = ty.members.iter().map(|member| Ok((resolve(member)?, member.val())));
            enums.push((name, members.collect::<Result<_, BtfError>>()?));
        }
        Ok(enums)
    }

    /// Values of enumerators of enums without a name, in the order asked for; nothing for one that this kernel does
    /// not have.
    ///
    /// # Errors
    ///
    /// When the type information is malformed.
    pub fn anonymous_enumerators(&self, wanted: &[&str]) -> Result<Vec<Option<u32>>, BtfError> {
        let mut values = vec![None; wanted.len()];
        // By number: the list of all types without a name would hold every anonymous struct and union too.
        let ids = self.btf.resolve_ids_by_name("").map_err(|error| self.parse_error(&error))?;
        for id in ids {
            let Ok(Type::Enum(ty)) = self.btf.resolve_type_by_id(id) else { continue };
            for member in &ty.members {
                let name = self.btf.resolve_name(member).map_err(|error| self.parse_error(&error))?;
                if let Some(at) = wanted.iter().position(|wanted| *wanted == name) {
                    values[at].get_or_insert(member.val());
                }
            }
            if values.iter().all(Option::is_some) {
                break;
            }
        }
        Ok(values)
    }

    /// Types of a tracepoint's arguments (`TP_PROTO`) as the C programmer wrote them, without qualifiers:
    /// `struct sk_buff *`, `enum skb_drop_reason`. Nothing when there is no such tracepoint.
    ///
    /// # Errors
    ///
    /// When the type information is malformed.
    pub fn tracepoint_arguments(&self, name: &str) -> Result<Option<Vec<String>>, BtfError> {
        for ty in self.types(&format!("btf_trace_{name}"))? {
            let Type::Typedef(typedef) = ty else { continue };
            for link in self.btf.chained_type_iter(&typedef) {
                let Type::FuncProto(prototype) = link else { continue };
                // The first parameter is the probe's private data.
                return prototype
                    .parameters
                    .iter()
                    .skip(1)
                    .map(|p| self.spell(p))
                    .collect::<Result<_, _>>()
                    .map(Some);
            }
        }
        Ok(None)
    }

    /// Types of a function's arguments, spelled as for [`Self::tracepoint_arguments`]. Nothing when the kernel image has
    /// no such function, or shows it not.
    ///
    /// # Errors
    ///
    /// When the type information is malformed.
    pub fn function_arguments(&self, name: &str) -> Result<Option<Vec<String>>, BtfError> {
        for ty in self.types(name)? {
            let Type::Func(function) = ty else { continue };
            for link in self.btf.chained_type_iter(&function) {
                let Type::FuncProto(prototype) = link else { continue };
                let arguments = prototype.parameters.iter().map(|p| self.spell(p));
                return arguments.collect::<Result<_, _>>().map(Some);
            }
        }
        Ok(None)
    }

    fn spell(&self, ty: &dyn BtfType) -> Result<String, BtfError> {
        let mut stars = String::new();
        for link in self.btf.chained_type_iter(ty) {
            let (keyword, named): (&str, &dyn BtfType) = match &link {
                Type::Ptr(_) => {
                    stars.push('*');
                    continue;
                }
                Type::Const(_) | Type::Volatile(_) | Type::Restrict(_) | Type::TypeTag(_) => continue,
                Type::Struct(ty) => ("struct ", ty),
                Type::Union(ty) => ("union ", ty),
                Type::Enum(ty) => ("enum ", ty),
                Type::Enum64(ty) => ("enum ", ty),
                Type::Fwd(ty) => ("struct ", ty),
                Type::Typedef(ty) => ("", ty),
                Type::Int(ty) => ("", ty),
                _ => break,
            };
            let name = self.btf.resolve_name(named).map_err(|error| self.parse_error(&error))?;
            let space = if stars.is_empty() { "" } else { " " };
            return Ok(format!("{keyword}{name}{space}{stars}"));
        }
        // A pointer to nothing named.
        Ok(format!("void {stars}"))
    }
}

/// One struct of the running kernel.
pub struct Structure<'a> {
    btf: &'a KernelBtf,
    name: String,
    ty: btf_rs::Struct,
}

impl Structure<'_> {
    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(self.ty.size()).unwrap_or(u32::MAX)
    }

    /// Finds a member by its path, `a.b.c`; members of anonymous structs and unions count as the outer one's.
    ///
    /// # Errors
    ///
    /// When there is no such member.
    pub fn member(&self, path: &str) -> Result<Member, BtfError> {
        let missing = || BtfError::NoMember { ty: self.name.clone(), member: path.to_owned() };
        let mut structure = self.ty.clone();
        let mut bit = 0;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let (offset, member) = self.find(&structure, name)?.ok_or_else(missing)?;
            bit += offset;
            if names.peek().is_none() {
                // The width of an ordinary member reads as 0.
                return Ok(Member { bit, bits: member.bitfield_size().filter(|bits| *bits != 0) });
            }
            structure = self.inner(&member)?.ok_or_else(missing)?;
        }
        Err(missing())
    }

    /// A member of `structure`, and its bit offset there.
    fn find(
        &self,
        structure: &btf_rs::Struct,
        wanted: &str,
    ) -> Result<Option<(u32, btf_rs::Member)>, BtfError> {
        for member in &structure.members {
            let name = self.btf.btf.resolve_name(member).unwrap_or_default();
            if name == wanted {
                return Ok(Some((member.bit_offset(), member.clone())));
            }
            if name.is_empty()
                && let Some(inner) = self.inner(member)?
                && let Some((offset, found)) = self.find(&inner, wanted)?
            {
                return Ok(Some((member.bit_offset() + offset, found)));
            }
        }
        Ok(None)
    }

    /// The struct or union a member is of, behind typedefs and qualifiers.
    fn inner(&self, member: &btf_rs::Member) -> Result<Option<btf_rs::Struct>, BtfError> {
        for link in self.btf.btf.chained_type_iter(member) {
            match link {
                Type::Struct(ty) | Type::Union(ty) => return Ok(Some(ty)),
                Type::Typedef(_) | Type::Const(_) | Type::Volatile(_) | Type::TypeTag(_) => {}
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// Copies a file into anonymous memory.
fn copy_to_memory(path: &Path) -> io::Result<File> {
    let mut from = File::open(path)?;
    let memory = rustix::fs::memfd_create("btf", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut to = File::from(memory);
    io::copy(&mut from, &mut to)?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vmlinux() -> Option<KernelBtf> {
        let path = Path::new(KernelBtf::VMLINUX);
        if !path.exists() {
            println!("SKIP: this kernel has no {}", path.display());
            return None;
        }
        Some(KernelBtf::open(path).unwrap())
    }

    #[test]
    fn members_of_this_kernel() {
        let Some(btf) = vmlinux() else { return };
        let skb = btf.structure("sk_buff").unwrap();
        assert!(skb.size() > 100);
        let dev = skb.member("dev").unwrap();
        assert_eq!((dev.bit % 64, dev.bits), (0, None));
        assert_eq!(skb.member("pkt_type").unwrap().bits, Some(3));
        let sock = btf.structure("sock").unwrap();
        assert!(sock.member("__sk_common.skc_net.net").unwrap().byte() > 0);
        assert!(matches!(sock.member("__sk_common.nonsense"), Err(BtfError::NoMember { .. })));
        assert!(matches!(btf.structure("no_such_struct"), Err(BtfError::NoType(_))));
    }

    #[test]
    fn tracepoint_of_this_kernel() {
        let Some(btf) = vmlinux() else { return };
        let arguments = btf.tracepoint_arguments("kfree_skb").unwrap().unwrap();
        assert_eq!(arguments[..2], ["struct sk_buff *", "void *"]);
        assert_eq!(btf.tracepoint_arguments("no_such_tracepoint").unwrap(), None);
        let arguments = btf.function_arguments("tcp_conn_request").unwrap().unwrap();
        assert_eq!(arguments[2..], ["struct sock *", "struct sk_buff *"]);
        assert_eq!(btf.function_arguments("no_such_function").unwrap(), None);
        assert_eq!(btf.enumerators("no_such_enum").unwrap(), None);
    }

    #[test]
    fn enumerator_of_this_kernel() {
        let Some(btf) = vmlinux() else { return };
        let values = btf.anonymous_enumerators(&["NO_SUCH_ENUMERATOR", "NEIGH_VAR_QUEUE_LEN_BYTES"]).unwrap();
        assert_eq!(values[0], None);
        assert!(values[1].is_some_and(|index| index < 64));
    }

    #[test]
    fn missing_file_says_which() {
        let error = KernelBtf::open(Path::new("/nonexistent/btf")).err().unwrap();
        assert!(error.to_string().contains("/nonexistent/btf"), "{error}");
    }
}
