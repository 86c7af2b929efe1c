// One TCP connection that never pauses: as a server it sends back what it gets; as a client it sends numbered lines,
// each once the one before has come back, and prints the number. Arguments: serve PORT, or keep ADDRESS PORT.
import { connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'

const [role, first = '', second = ''] = process.argv.slice(2)
const fail = ({ message }: Error) => {
  process.stdout.write(`broken: ${message}\n`)
  process.exit(1)
}

if (role === 'serve') {
  createServer((socket) => socket.on('error', () => socket.destroy()).pipe(socket)).listen(Number(first), () =>
    process.stdout.write('listening\n')
  )
} else {
  const socket = connect({ host: first, port: Number(second) }).on('error', fail)
  socket.on('close', () => fail(new Error('closed')))
  let number = 0
  const send = () => socket.write(`${number}\n`)
  socket.on('connect', send)
  createInterface({ input: socket }).on('line', (line) => {
    if (Number(line) !== number) fail(new Error(`${line} instead of ${number}`))
    if (++number % 100 === 0) process.stdout.write(`${number}\n`)
    send()
  })
}
