/* Where firmware leaves it for those who search, 0xE0000 (ACPI 6.3, 5.2.5). */
[0008]                          Signature : "RSD PTR "
[0001]                           Checksum : 00
[0006]                             Oem ID : "QUIRE "
[0001]                           Revision : 02
[0004]                       RSDT Address : 000E0040
[0004]                             Length : 00000024
[0008]                       XSDT Address : 00000000000E0080
[0001]                  Extended Checksum : 00
[0003]                           Reserved : 000000
