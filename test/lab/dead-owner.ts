// A process that makes a lab and then waits to be killed; lab.test.ts uses it. With `keep` the lab is to stay up.
import { Lab } from './hosts.ts'

const lab = await Lab.start({ hosts: [1] })
await lab.host(1).pod('p')
lab.host(1).spawn('sleep', ['100000'])
if (process.argv[2] === 'keep') lab.keep()
process.stdout.write(`up ${lab.name}\n`)
setInterval(() => {}, 60_000)
