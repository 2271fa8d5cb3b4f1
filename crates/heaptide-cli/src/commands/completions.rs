//! `heaptide completions`

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::CommandLine;
use crate::output::write_stdout;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  heaptide completions bash > ~/.local/share/bash-completion/completions/heaptide
  heaptide completions zsh > ~/.zfunc/_heaptide            with ~/.zfunc in $fpath
  heaptide completions fish > ~/.config/fish/completions/heaptide.fish")]
pub(crate) struct Arguments {
    /// The shell that is to complete
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Into memory first: the generator knows no errors, and a reader may go away.
    let mut script = Vec::new();
    generate(
        arguments.shell,
        &mut CommandLine::command(),
        "heaptide",
        &mut script,
    );
    write_stdout(|out| out.write_all(&script))
}
