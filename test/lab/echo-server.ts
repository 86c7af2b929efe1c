// A pod's server for tests of host ports: replies over TCP and UDP with its name and the client's address. Arguments:
// name, port.
import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'

const [name = '', port = ''] = process.argv.slice(2)
const plain = (address = '') => address.replace(/^::ffff:/, '')

const udp = createSocket('udp6', (_, { address, port: from }) =>
  udp.send(`${name} sees ${plain(address)}`, from, address)
)
udp.bind(Number(port), '::', () => {
  createServer((socket) => {
    socket.on('error', () => socket.destroy())
    socket.end(`${name} sees ${plain(socket.remoteAddress)}`)
  }).listen(Number(port), '::', () => process.stdout.write('listening\n'))
})
