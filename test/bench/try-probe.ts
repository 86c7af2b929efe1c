import { fileURLToPath } from 'node:url'
import { Lab } from '../lab/hosts.ts'
const worker = fileURLToPath(new URL('probe-worker.ts', import.meta.url))
await using lab = await Lab.start({ hosts: [2] })
const [one, two] = [lab.host(1), lab.host(2)]
for (const prefix of ['10.64.0.0/11', '198.18.0.0/15']) {
  await one.sh(`ip route add ${prefix} via ${two.address}`)
  await two.sh(`ip route add local ${prefix} dev lo`)
}
await one.sh('ip address add 10.200.0.0/32 dev eth0')
await two.sh(`ip route add 10.200.0.0/32 via ${one.address}`)
const { stdout } = await one.exec(process.execPath, ['--expose-gc', '--cpu-prof', '--cpu-prof-dir=/tmp/w/prof2', worker, '5000', '30', one.address], { timeoutMs: 600_000 })
console.log(stdout)
