//! Writes the seeds of the fuzz targets to `fuzz/seeds`.

use std::fs;
use std::io;
use std::path::Path;

use cifar_fuzz::seeds;

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/seeds");
    for seed in seeds::all() {
        let folder = folder.join(seed.target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(seed.name), seed.bytes)?;
    }
    Ok(())
}
