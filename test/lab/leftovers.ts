// Prints what labs of ended processes left on this machine, and fails if that is anything. With `--remove`, takes it
// away; a name takes away that lab, kept or not.
import { deadLabs, leftovers, leftoversOf, removeLab } from './sweep.ts'

const args = process.argv.slice(2)
const names = args.filter((argument) => argument !== '--remove')
if (args.length > 0) {
  for (const name of names.length > 0 ? names : deadLabs()) {
    process.stdout.write(`removing ${name}\n`)
    removeLab(name)
  }
}
const lines = names.length > 0 ? names.flatMap((name) => leftoversOf(name)) : leftovers()
for (const line of lines) process.stderr.write(`${line}\n`)
if (lines.length > 0) process.exitCode = 1
