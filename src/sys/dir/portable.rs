//! The queue directory on platforms without a kept descriptor. Every call uses a path.

use std::fs::{DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Directory, Found, Opened};
use crate::sys::file::{self, FileId};
use crate::sys::replace::Draft;
use crate::sys::rights::Rights;

/// A queue directory.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
}

impl Directory for Dir {
    fn make_like(path: &Path, model: &Path) -> io::Result<Option<(File, FileId)>> {
        let Some(rights) = Rights::at_path(model)? else {
            return Ok(None);
        };
        file::checked(create(path, &rights)?).map(Some)
    }

    fn make_record(path: &Path) -> io::Result<File> {
        File::create_named(path, 0o666)
    }

    fn make_shared(path: &Path) -> io::Result<()> {
        match DirBuilder::new().create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn make_shared_draft(path: &Path) -> io::Result<()> {
        DirBuilder::new().create(path)
    }

    fn open(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => Ok(Some(Self {
                path: path.to_path_buf(),
            })),
            Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(path: &Path, door: &Path) -> io::Result<()> {
        let Some(rights) = Rights::at_path(door)? else {
            return Ok(());
        };
        match DirBuilder::new().create(path) {
            Ok(()) => rights.give_to_directory(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn rights(&self, door: &Path) -> io::Result<Rights> {
        if let Some(rights) = Rights::at_path(door)? {
            return Ok(rights);
        }
        let rights = Rights::at_path(&self.path)?.map(Rights::of_files_in);
        rights.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&mut self, mut each: impl FnMut(&[u8], u64)) -> io::Result<bool> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type().is_ok_and(|it| it.is_file()) {
                each(entry.file_name().as_encoded_bytes(), 0);
            }
        }
        Ok(true)
    }

    fn open_existing(&self, name: &str) -> io::Result<Option<(File, FileId)>> {
        file::open_existing(&self.path.join(name))
    }

    fn make(&self, name: &str, rights: &Rights) -> io::Result<File> {
        create(&self.path.join(name), rights)
    }

    fn make_visible(&self, name: &str, rights: &Rights) -> io::Result<File> {
        self.make(name, rights)
    }

    fn open_ticket(&self, name: &str) -> io::Result<Opened> {
        let path = self.path.join(name);
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let (opened, writable) = match file::open_existing(&path) {
            Err(error) if denied(&error) => (file::open_to_read(&path), false),
            opened => (opened.map(|it| it.map(|(file, _)| file)), true),
        };
        match opened {
            Ok(Some(file)) => Ok(Opened::File { file, writable }),
            Ok(None) => Ok(Opened::Gone),
            Err(error) if denied(&error) => Ok(Opened::Denied),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        file::replace(&self.path.join(from), &self.path.join(to))
    }

    fn find(&self, name: &str) -> io::Result<Option<Found>> {
        let found = file::look_at(&self.path.join(name))?;
        Ok(found.map(|(id, marked)| Found { id, marked }))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        // Beside the directory, which may be removed next.
        match file::remove(&self.path.join(name), &self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn create(path: &Path, rights: &Rights) -> io::Result<File> {
    let file = File::create_named(path, 0o666)?;
    rights.give(&file)?;
    Ok(file)
}
