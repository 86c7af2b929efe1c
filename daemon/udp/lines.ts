// Splits what arrives on a stream into lines.
import { LONGEST_LINE } from './protocol.ts'

/** Errors: RangeError, for a line that is too long. */
export function lineReader(line: (text: string) => void, longest: number = LONGEST_LINE): (text: string) => void {
  let begun: string[] = []
  let length = 0
  return (text) => {
    const [first = '', ...others] = text.split('\n')
    begun.push(first)
    length += first.length
    if (length > longest) throw new RangeError(`a line is longer than ${longest} octets`)
    if (others.length === 0) return
    const whole = begun.join('')
    const rest = others.pop() ?? ''
    begun = [rest]
    length = rest.length
    line(whole)
    for (const other of others) line(other)
  }
}
