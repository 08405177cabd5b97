"""Reports to senders: delivery status notifications (RFC 3461, 3464, 6522, 6533). Pure, but for :mod:`.following`.

| module | what it knows |
|---|---|
| ``policy`` | what an application may choose: who is told what, when, how often, in which words |
| ``facts`` | the values that a report is made from |
| ``deciding`` | which recipients of a message are to be reported now, and to whom |
| ``limiting`` | how many reports one sender gets |
| ``addressing`` | addresses and texts as the fields of RFC 3464 and RFC 6533 take them |
| ``wording`` | the text for people, English by default |
| ``fields`` | the part for programs, message/delivery-status |
| ``returning`` | the part that returns the message or its header |
| ``composing`` | the report as a whole |
| ``following`` | what is to be done about one followup of the spool |
"""
