// A pod's server for the stories of host ports: over TCP and UDP it tells its own name and whom it sees. Arguments: name, port.
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
