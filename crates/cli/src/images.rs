//! `dunlin image`: container images that come to the platform without a registry.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use dunlin_model::tar;
use serde_json::Value;

use crate::args::{Format, ImageCommand};
use crate::client::{Call, Client, segment};
use crate::failure::{Failure, Kind};
use crate::functions::confirmed;
use crate::output::{Output, text};
use crate::upload::Upload;

pub(crate) fn run(client: &Client, output: &Output, command: &ImageCommand) -> Result<ExitCode, Failure> {
    match command {
        ImageCommand::Ls => list(client, output)?,
        ImageCommand::Push { name, path } => {
            let what = format!("cannot push image '{name}'");
            let archive = open(path).and_then(Upload::new).map_err(|error| {
                Failure::of(&what, &error)
                    .next("give a tar file (an OCI layout, or from 'docker save'), or a folder with an OCI layout")
            })?;
            let step = output.step(format!("uploading {} MB", archive.size().div_ceil(1 << 20)));
            let mut call = Call::new("DunlinPushImage", "PUT", path_of(name));
            call.headers.push(("content-type", "application/x-tar".to_owned()));
            call.upload = Some(archive);
            call.patient = true;
            let image = client.json(&what, call)?;
            step.done();
            let reference = text(&image["image"]);
            output.note(&format!("pushed {name}; a function of the runtime custom-container runs it as {reference}"));
            match output.format {
                Format::Json => output.json(&image),
                Format::Name | Format::Table => output.line(&reference),
            }
        }
        ImageCommand::Rm { name, yes } => {
            let what = format!("cannot remove image '{name}'");
            if !yes && !confirmed(&what, &format!("Remove image '{name}'? [y/N] "))? {
                return Err(Failure::new(Kind::Interrupted, what, "you said no"));
            }
            client.send(&what, Call::new("DunlinDeleteImage", "DELETE", path_of(name)))?;
            output.note(&format!("removed image {name}; functions that run it keep it"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path_of(name: &str) -> String {
    format!("/dunlin/images/{}", segment(name))
}

fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let mut answer = client.json("cannot list images", Call::new("DunlinListImages", "GET", "/dunlin/images"))?;
    let images = match answer["images"].take() {
        Value::Array(images) => images,
        _ => Vec::new(),
    };
    if images.is_empty() && output.format == Format::Table {
        output.note("there are no images; bring one with 'dunlin image push NAME PATH'");
        return Ok(());
    }
    let mb = |value: &Value| format!("{} MB", value.as_u64().unwrap_or(0).div_ceil(1 << 20));
    output.list(
        &images,
        "image",
        &[
            ("IMAGE", &|image| text(&image["image"])),
            ("ARCHIVE", &|image| mb(&image["size"])),
            ("UNPACKED", &|image| mb(&image["unpackedSize"])),
            ("CREATED", &|image| text(&image["createdTime"])),
            ("DIGEST", &|image| text(&image["digest"])),
        ],
    );
    Ok(())
}

/// A file as it is, or a folder as a tar of its files.
fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_dir() {
        return File::open(path);
    }
    let mut archive = tempfile::tempfile()?;
    add(path, "", &mut archive)?;
    archive.write_all(&tar::END)?;
    Ok(archive)
}

fn add(folder: &Path, prefix: &str, archive: &mut File) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if fs::metadata(entry.path())?.is_dir() {
            add(&entry.path(), &format!("{name}/"), archive)?;
            continue;
        }
        // A layout's own names are far shorter; what else lies in the folder is not of the image.
        if name.len() > 100 {
            continue;
        }
        let file = File::open(entry.path())?;
        let size = file.metadata()?.len();
        archive.write_all(&tar::header(&name, size))?;
        if io::copy(&mut file.take(size), archive)? != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        archive.write_all(tar::padding(size))?;
    }
    Ok(())
}
