// Asks echo-server.ts, or whoever has the address: arguments are protocol, address, port and, for UDP, the source port.
// Prints the answer; fails after 5 s.
import { createSocket } from 'node:dgram'
import { connect, isIPv6 } from 'node:net'

const [protocol, address = '', port = '', from = '0'] = process.argv.slice(2)
const fail = (why: string) => {
  process.stdout.write(`${why}\n`)
  process.exit(1)
}
setTimeout(() => fail('no answer'), 5_000)

if (protocol === 'udp') {
  const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4', (answer) => {
    process.stdout.write(`${answer}\n`)
    process.exit(0)
  })
  socket.on('error', ({ message }) => fail(message))
  socket.bind(Number(from), () => socket.send('?', Number(port), address))
} else {
  let said = ''
  connect({ host: address, port: Number(port) })
    .on('data', (bytes) => {
      said += bytes
    })
    .on('error', ({ message }) => fail(message))
    .on('end', () => {
      process.stdout.write(`${said}\n`)
      process.exit(said === '' ? 1 : 0)
    })
}
